"""A live page of a run: on this machine only, for who has its address, nothing from elsewhere."""

from jaxstyle.serve.page import make_app as make_app
from jaxstyle.serve.server import Page as Page
from jaxstyle.serve.server import serve as serve
