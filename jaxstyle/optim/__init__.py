"""Optimizers: one interface, L-BFGS on the device, first-order methods, the libraries' L-BFGS."""
