"""Chaos: kill the processes of a shop, and check the remains.

Runs as `python -m tests.chaos [--kills N] [--seed N] [--every-point] [--json FILE]`.
"""

import argparse
import json
import sys
from pathlib import Path

from tests.chaos.campaign import Campaign, Tally
from tests.support.postgresql import UnavailableError

# Most points that the report names.
_MAX_MISSING = 20


def main() -> int:
    """Run a campaign, print its report, and return the exit code.

    It is 1 if there were defects, and 2 if there is no PostgreSQL.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=1000, help="Least number of kills.")
    parser.add_argument("--seed", type=int, default=1, help="Seed of all choices.")
    parser.add_argument(
        "--every-point",
        action="store_true",
        help="Go on until agents and people were killed at each of their points.",
    )
    parser.add_argument("--json", type=Path, help="File to write the report to.")
    options = parser.parse_args()
    try:
        campaign = Campaign(options.kills, options.seed, _print, every_point=options.every_point)
        tally = campaign.run(lambda tally: _save(tally, options.json))
    except UnavailableError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    _save(tally, options.json)
    for line in report_lines(tally):
        _print(line)
    return 1 if tally.defects else 0


def report_lines(tally: Tally) -> list[str]:
    """Return the report of a campaign."""
    figures = {
        "seed": tally.seed,
        "kills": tally.kills.total(),
        **{f"  {kind}": count for kind, count in sorted(tally.kills.items())},
        "  in runs with two agents": tally.with_two_agents,
        **{
            f"points of the {victim}": f"killed at {tally.points_hit[victim]} of {count}"
            for victim, count in tally.points.items()
        },
        "points of retries and takeovers": f"killed at {tally.other_points_hit}",
        "runs": tally.runs.total(),
        **{f"  {setting}": count for setting, count in sorted(tally.runs.items())},
        "processes started again": tally.restarts,
        "messages with their report": tally.messages,
        "clear errors, then sent again": tally.errors.total(),
        "deliveries that repeated a key": tally.repeated,
        "longest wait for a report": f"{tally.longest_wait:.1f} s",
        "longest takeover": f"{tally.longest_takeover:.1f} s",
        "longest settlement": f"{tally.longest_settlement:.1f} s",
        "wall time": f"{tally.seconds / 60:.1f} min",
        "defects": len(tally.defects),
    }
    lines = [f"{name:<36}{figure}" for name, figure in figures.items()]
    lines += [f"  {defect}" for defect in tally.defects]
    return lines + [f"  not killed at {point}" for point in tally.missing[:_MAX_MISSING]]


def report_json(tally: Tally) -> str:
    """Return the report of a campaign as JSON."""
    return json.dumps(vars(tally), indent=2, ensure_ascii=False)


def _save(tally: Tally, path: Path | None) -> None:
    """Write the report so far; a campaign may end at any time."""
    if path is not None:
        path.write_text(f"{report_json(tally)}\n", encoding="utf-8")


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
