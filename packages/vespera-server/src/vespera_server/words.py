"""Responsible for numbers as people read them."""

from __future__ import annotations

__all__ = ["counted", "money", "span"]


def counted(number: int, noun: str) -> str:
    """``1 task``, ``3 tasks``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def money(usd: float | None) -> str:
    """US dollars, or nothing."""
    return "" if usd is None else f"${usd:.3f}"


def span(seconds: float | None) -> str:
    """``4s``, ``3m12s``, ``2h05m``, ``3d4h``, or nothing."""
    if seconds is None:
        return ""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600}h"
