"""The studio: a page in the browser that starts runs, and the folder of their images."""

from jaxstyle.studio.folder import Folder as Folder
from jaxstyle.studio.queue import RunQueue as RunQueue
from jaxstyle.studio.view import StudioView as StudioView
