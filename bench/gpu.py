"""Everything that a GPU has to prove, on one card, in two calls of at most six minutes each.

    python bench/gpu.py --call 1 --out DIR       what must be right, the kernels, and training
    python bench/gpu.py --call 2 --out DIR       the largest models, generation, and compiled peers
    python bench/gpu.py --only flash,nano        some sections;  --list: all of them
    python bench/gpu.py --rehearse               every section with tiny shapes on the CPU, without a GPU
    python bench/gpu.py --collect FILE...        joins what calls printed or wrote into bench/results/gpu_CARD.json

It runs from a checkout, without installation or network: torch, triton, numpy and transformers are enough. A section
has a process and a time limit of its own, so that one that hangs, crashes or breaks the card's context costs itself
alone; its JSON line is printed as soon as it ends. Those for which a call has no time left are said to be skipped. What
was measured is in DIR (without --out: in bench/results) as gpu_CARD.json; what else the workers said, in DIR/gpu.log.

Sections, limits and bars: gpu_sections/table.py. Training on Shakespeare takes the text from --shakespeare, or from
shared/data/tinyshakespeare.txt in the checkout or beside it, or from nano_llama's cache; else from the standard
library's source, and says so.
Tests: tests/bench/test_gpu.py.
"""

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from gpu_sections import ROOT
from gpu_sections.driver import CALL_SECONDS, PlannedClock, Worker, run
from gpu_sections.results import Results, collect, print_line
from gpu_sections.table import SECTIONS, Section, by_name

from nano_llama.core.errors import NanoLlamaError

RESULTS = ROOT / "bench" / "results"


def chosen(only: str | None, call: int | None) -> list[Section]:
    if only:
        return [by_name(name) for name in only.split(",")]
    return [section for section in SECTIONS if call is None or section.call == call]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--call", type=int, choices=(1, 2), help="the sections of one call (default: all)")
    parser.add_argument("--only", metavar="NAME,...", help="these sections, in this order")
    parser.add_argument("--seconds", type=float, default=CALL_SECONDS, help="what this call may take")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the results go (default: bench/results)")
    parser.add_argument("--shakespeare", type=Path, metavar="FILE", help="tinyshakespeare.txt")
    parser.add_argument("--rehearse", action="store_true", help="tiny shapes on the CPU; nothing goes to bench/results")
    parser.add_argument("--list", action="store_true", help="the sections: call, seconds, limit, what each shows")
    parser.add_argument("--collect", nargs="+", type=Path, metavar="FILE", help="join these into one file of results")
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the workers, sessions of their own, are ended too
    try:
        if args.collect:
            print(collect(args.collect, args.out or RESULTS))
            return 0
        sections = chosen(args.only, args.call)
        if args.list:
            for section in sections:
                print(f"{section.call}  {section.name:14} {section.seconds:3} of {section.limit:3} s  {section.shows}")
            return 0
        with tempfile.TemporaryDirectory() as scratch:
            return measure(sections, args, Path(scratch))
    except NanoLlamaError as error:
        print(f"gpu.py: {error}", file=sys.stderr)
        return error.exit_code


def measure(sections: list[Section], args: argparse.Namespace, scratch: Path) -> int:
    """-> 0: nothing failed; 1: something did, or missed its bar."""
    out = args.out or (scratch if args.rehearse else RESULTS)
    out.mkdir(parents=True, exist_ok=True)
    results = Results(out)
    shakespeare = str(args.shakespeare.resolve()) if args.shakespeare else None
    options = {"rehearse": args.rehearse, "scratch": str(scratch), "shakespeare": shakespeare}
    good = True
    with ((args.out or scratch) / "gpu.log").open("w") as log:
        clock = PlannedClock() if args.rehearse else None

        def begin(section: Section) -> Worker:
            return Worker(section, options, log)

        for call in sorted({section.call for section in sections}) if clock else (0,):  # a rehearsal plans both calls
            planned = [section for section in sections if not clock or section.call == call]
            for line in run(planned, begin, seconds=args.seconds, **({"clock": clock} if clock else {})):
                if clock:
                    clock.passed(line)
                print_line(line)
                results.add(line)
                good = good and (line["passed"] or (args.rehearse and line["status"] == "skipped"))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
