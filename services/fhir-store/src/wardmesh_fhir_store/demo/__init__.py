"""Synthetic demo data of our own making: no person, number or address in it is real."""
