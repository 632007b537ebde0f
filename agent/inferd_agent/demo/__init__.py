"""The bundled demo: a small INT8 digit classifier, real digits it has never seen, and what to do with them.

Plain files and numpy: nothing here knows the daemon, a client or an engine. See README.md beside this file for sources.
"""

from inferd_agent.demo.digits import INPUT, MODEL, MODELS, OUTPUT, Digits, accuracy, draw, held_out, side_by_side

__all__ = ["INPUT", "MODEL", "MODELS", "OUTPUT", "Digits", "accuracy", "draw", "held_out", "side_by_side"]
