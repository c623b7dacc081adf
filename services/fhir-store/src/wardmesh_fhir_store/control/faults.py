"""Refusals of the control plane, named as AWS names them; their messages quote nothing that was sent."""

from __future__ import annotations


class ControlFault(Exception):
    """`code` is AWS's name of the exception."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


def invalid(message: str) -> ControlFault:
    return ControlFault("ValidationException", message)


def not_found(message: str = "There is no such datastore.") -> ControlFault:
    return ControlFault("ResourceNotFoundException", message)


def conflict(message: str) -> ControlFault:
    return ControlFault("ConflictException", message)
