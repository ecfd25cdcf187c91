"""A web page that shows a run or a grid live, on this machine only, protected by a token."""

from jaxstyle.monitor.serve.app import make_app as make_app
from jaxstyle.monitor.serve.grid import GridView as GridView
from jaxstyle.monitor.serve.run import RunView as RunView
from jaxstyle.monitor.serve.server import Page as Page
from jaxstyle.monitor.serve.server import serve as serve
from jaxstyle.monitor.serve.view import View as View
