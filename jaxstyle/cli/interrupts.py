"""Ctrl-C and SIGTERM, where the commands look for them."""

from jaxstyle.interrupts import INTERRUPTED as INTERRUPTED
from jaxstyle.interrupts import TERMINATED as TERMINATED
from jaxstyle.interrupts import Terminated as Terminated
from jaxstyle.interrupts import interrupts as interrupts
