"""`wardmesh-audit detect`: the rules in force, their cases, how good they are on a made-up month, and a feed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from wardmesh_audit import care_command
from wardmesh_audit.detect_evaluate import evaluate, load_floors
from wardmesh_audit.rule_cases import run_cases
from wardmesh_audit.rules import BadRules, load_rules
from wardmesh_audit.settings import AuditSettings
from wardmesh_common.settings import BadSettings

Command = Callable[[argparse.Namespace, AuditSettings], Awaitable[int]]

FAILED = 1
_MOST_DAYS = 366


def add_parsers(commands: Any) -> None:
    actions = commands.add_parser("detect", help="detection rules").add_subparsers(dest="action", required=True)
    for name, about in (("rules", "list the rules in force"), ("test", "run the cases kept beside each rule")):
        actions.add_parser(name, help=about).add_argument("--json", action="store_true")
    measure = actions.add_parser("evaluate", help="precision and recall on a made-up month with planted incidents")
    measure.add_argument("--seed", type=int, default=1)
    measure.add_argument("--days", type=_days, default=30)
    measure.add_argument("--floors", type=Path, metavar="FILE", help="what has to be reached, instead of our own")
    measure.add_argument("--json", action="store_true")
    care_command.add_parser(actions)


async def cmd_detect(args: argparse.Namespace, settings: AuditSettings) -> int:
    """Opens no connection. Raises BadSettings when a rule file is not valid."""
    if args.action == "care-teams":
        return care_command.care_teams(args)
    try:
        return {"rules": _rules, "test": _test, "evaluate": _evaluate}[args.action](args, settings)
    except BadRules as error:
        raise BadSettings(str(error)) from None


def _rules(args: argparse.Namespace, settings: AuditSettings) -> int:
    for rule in load_rules(settings.audit_rules_dir):
        if args.json:
            _say(msgspec.json.encode(rule).decode())
        else:
            off = "" if rule.enabled else " (switched off)"
            effect = "score only" if rule.score_only else rule.severity
            _say(f"{rule.name:32} {effect:10} {rule.title}{off}")
    return 0


def _test(args: argparse.Namespace, settings: AuditSettings) -> int:
    outcomes = [outcome for rule in load_rules(settings.audit_rules_dir) for outcome in run_cases(rule)]
    for outcome in outcomes:
        if args.json:
            _say(msgspec.json.encode({**msgspec.structs.asdict(outcome), "good": outcome.good}).decode())
        else:
            word = "fires" if outcome.expected else "silent"
            _say(f"{'ok  ' if outcome.good else 'FAIL'} {outcome.rule:32} {word:6} {outcome.case}")
    return 0 if all(outcome.good for outcome in outcomes) else FAILED


def _evaluate(args: argparse.Namespace, settings: AuditSettings) -> int:
    floors = load_floors(args.floors)
    result = evaluate(load_rules(settings.audit_rules_dir), args.seed, args.days)
    below = result.below(floors)
    if args.json:
        scores = [
            {**msgspec.structs.asdict(score), "precision": score.precision, "recall": score.recall}
            for score in (*result.scores, result.overall)
        ]
        _say(msgspec.json.encode({"events": result.events, "scores": scores, "below": below}).decode())
        return FAILED if below else 0
    _say(f"{result.events} events of {args.days} days, seed {args.seed}, {result.overall.planted} planted incidents")
    _say(f"{'rule':32} {'alerts':>7} {'right':>6} {'planted':>8} {'found':>6} {'precision':>10} {'recall':>7}")
    for score in (*result.scores, result.overall):
        numbers = f"{score.alerts:7} {score.right:6} {score.planted:8} {score.found:6}"
        verdict = "  BELOW THE FLOOR" if score.rule in below else ""
        _say(f"{score.rule:32} {numbers} {score.precision:10.2f} {score.recall:7.2f}{verdict}")
    return FAILED if below else 0


def _days(text: str) -> int:
    days = int(text)
    if not 7 <= days <= _MOST_DAYS:
        raise argparse.ArgumentTypeError(f"a month has 7 to {_MOST_DAYS} days here")
    return days


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


COMMANDS: Mapping[str, Command] = {"detect": cmd_detect}
