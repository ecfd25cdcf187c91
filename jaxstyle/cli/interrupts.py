"""Ctrl-C, where the commands look for it."""

from jaxstyle.interrupts import interrupts as interrupts
