import numpy as np

from nano_llama.learn.checks import Case, Rejected


class Run:
    """Its clock moves while a step is made: by these durations, the last one again and again."""

    def __init__(self, durations, seconds, begin):
        self.durations, self.now, self.late = durations, begin, begin + 3 * seconds
        self.rates, self.begun = [], []

    def clock(self):
        return self.now

    def step(self, rate):
        self.rates.append(float(rate))
        self.begun.append(self.now)
        self.now += self.durations[min(len(self.rates), len(self.durations)) - 1]
        if self.now > self.late:
            raise Rejected("The run goes on and on: its time has passed three times over.")


def case(stage, label, durations, seconds, peak=1.0, begin=0.0, seed=0):
    inputs = {"durations of the steps": durations, "seconds": seconds, "peak": peak, "clock at the start": begin}

    def run(module):
        run = Run(durations, seconds, begin)
        function = getattr(module, "clocked", None)
        if function is None:
            raise Rejected("The file has no function 'clocked'.")
        rates = function(run.step, seconds, run.clock, peak)
        if not isinstance(rates, list):
            raise Rejected(f"clocked returned {type(rates).__name__}; expected a list of rates.")
        if len(rates) != len(run.rates) or not np.allclose(rates, run.rates):
            raise Rejected("The list that is returned does not hold the rates that step was called with.")
        return {"steps": len(rates), "rates": np.array(run.rates), "begun at": np.array(run.begun)}

    return Case(stage, label, run, seed, inputs)


def cases(seed):
    yield case("smallest", "equal steps", [1.0], 4.5)
    yield case("smallest", "the second is longer", [1.0, 2.0], 8.0, peak=0.5)
    yield case("smallest", "the first is longer", [3.0, 1.0], 8.5)
    rng = np.random.default_rng(seed)
    for number in range(3):
        durations = np.round(rng.uniform(0.2, 3.0, 60), 2).tolist()
        yield case("random", f"run {number + 1}", durations, 30.0, float(rng.uniform(0.1, 2)), seed=seed)
    yield case("edge", "the clock does not begin at zero", [1.0, 1.5, 0.5], 9.0, begin=1000.0)
    yield case("edge", "a first step that takes all the time", [7.0], 5.0)
    yield case("edge", "just in time", [1.0], 4.0)
