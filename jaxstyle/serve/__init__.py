"""A live page of a run or a grid: on this machine only, for who has its address."""

from jaxstyle.serve.app import make_app as make_app
from jaxstyle.serve.grid import GridView as GridView
from jaxstyle.serve.run import RunView as RunView
from jaxstyle.serve.server import Page as Page
from jaxstyle.serve.server import serve as serve
from jaxstyle.serve.view import View as View
