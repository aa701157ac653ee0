"""The engine: the same function as the network it was made from, whatever it does to be fast."""

import dataclasses

import pytest
import torch
from toys import PlantedNet, make_subject, planted_images, square_images, trained_subject

from trojai_moth.core.subject import Preprocessing, Subject
from trojai_moth.loading import build_architecture
from trojai_moth.triggers import engine as engine_module
from trojai_moth.triggers.batch_norm_folding import fold
from trojai_moth.triggers.engine import Engine, find_plan, threads, training_plan
from trojai_moth.triggers.execution_plan import Plan, PlanBook, fastest
from trojai_moth.triggers.inversion import invert, random_start, trigger_success
from trojai_moth.triggers.task import InversionSettings, make_task

CPU = torch.device("cpu")


@pytest.fixture
def probed(monkeypatch):
    """Plans are found by the probe, which tests elsewhere do without."""
    monkeypatch.setattr(engine_module, "find_plan", find_plan)


def with_statistics(module):
    """Batch norm as it is after training, not as it is made."""
    stream = torch.Generator().manual_seed(0)
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d) and part.running_mean is not None:
            part.running_mean.copy_(0.2 * torch.randn(part.num_features, generator=stream))
            part.running_var.copy_(0.5 + torch.rand(part.num_features, generator=stream))
    return module.eval()


@pytest.mark.parametrize(
    ("architecture", "folded", "norms"),
    [("resnet18", 20, 20), ("mobilenetv2", 52, 52), ("shufflenet1_0", 56, 56), ("googlenet", 57, 57),
     ("densenet121", 59, 121), ("squeezenetv1_1", 0, 0)],
)  # fmt: skip
def test_folding_keeps_the_function_and_follows_the_weights(architecture, folded, norms):
    module = with_statistics(build_architecture(architecture, 5))
    assert sum(isinstance(part, torch.nn.BatchNorm2d) for part in module.modules()) == norms
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    twin = fold(module)
    assert len(twin.pairs) == folded
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(twin.module(x), module(x), rtol=1e-4, atol=1e-5)
        for parameter in module.parameters():
            parameter.mul_(1.01)
        assert not torch.allclose(twin.module(x), module(x), rtol=1e-4, atol=1e-5)
        twin.refresh(module)
        torch.testing.assert_close(twin.module(x), module(x), rtol=1e-4, atol=1e-5)
        for parameter in module.parameters():
            parameter.div_(1.01)
    assert not any(parameter.requires_grad for parameter in twin.module.parameters())
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(tensor, state[name])


class Shared(torch.nn.Module):
    """Networks whose batch norm may not be folded: used twice, or fed by a convolution that feeds others too."""

    def __init__(self, twice):
        super().__init__()
        self.conv, self.norm, self.twice = torch.nn.Conv2d(3, 3, 1), torch.nn.BatchNorm2d(3), twice
        self.head = torch.nn.Linear(3, 2)

    def forward(self, x):
        x = self.conv(x)
        x = self.norm(self.norm(x)) if self.twice else self.norm(x) + x
        return self.head(x.mean(dim=(2, 3)))


class Untraceable(Shared):
    def forward(self, x):
        if float(x.sum()) > 1e9:
            return self.head(x.mean(dim=(2, 3)))
        return self.head(self.norm(self.conv(x)).mean(dim=(2, 3)))


class Tied(Shared):
    """A second convolution has the first one's weights."""

    def __init__(self):
        super().__init__(True)
        self.tied, self.other = torch.nn.Conv2d(3, 3, 1), torch.nn.BatchNorm2d(3)
        self.tied.weight = self.conv.weight

    def forward(self, x):
        return self.head(self.other(self.tied(self.norm(self.conv(x)))).mean(dim=(2, 3)))


class Reread(Shared):
    """The convolution's weights are used once more, without calling it."""

    def forward(self, x):
        return self.head((self.norm(self.conv(x)) + torch.nn.functional.conv2d(x, self.conv.weight)).mean(dim=(2, 3)))


class TwoNames(Shared):
    """The batch norm has two names."""

    def __init__(self):
        super().__init__(True)
        self.again = torch.nn.Sequential(self.conv, self.norm)

    def forward(self, x):
        return self.head(self.again(x).mean(dim=(2, 3)))


class Once(Shared):
    def forward(self, x):
        return self.head(self.norm(self.conv(x)).mean(dim=(2, 3)))


class Computed(Once):
    """The convolution's weights are computed from others."""

    def __init__(self):
        super().__init__(True)
        torch.nn.utils.parametrizations.weight_norm(self.conv)


class Hooked(Once):
    """Something is done to what the convolution gives."""

    def __init__(self):
        super().__init__(True)
        self.conv.register_forward_hook(lambda module, inputs, output: 2 * output)


class NoStatistics(Once):
    """The batch norm takes each batch's own."""

    def __init__(self):
        super().__init__(True)
        self.norm = torch.nn.BatchNorm2d(3, track_running_stats=False)


def test_what_is_called_once_is_folded():
    assert fold(Once(True)).pairs == (("conv", "norm"),)


@pytest.mark.parametrize(
    "module",
    [
        *(Shared(True), Shared(False), Untraceable(True)),
        *(Tied(), Reread(True), TwoNames(), Computed(), Hooked(), NoStatistics()),
    ],
    ids=lambda module: type(module).__name__,
)
def test_what_can_not_be_folded_is_left(module):
    module = with_statistics(module)
    twin = fold(module)
    x = torch.rand(2, 3, 8, 8)
    assert twin.pairs == ()
    torch.testing.assert_close(twin.module(x), module(x))


def test_the_gradient_is_autograds_and_the_subject_is_left_alone(probed):
    subject, images = trained_subject(), square_images(4, seed=5)
    subject.module.train()
    x, target = images.x.clone().requires_grad_(), torch.tensor([1] * len(images))
    weight = torch.rand(len(images), generator=torch.Generator().manual_seed(0))
    with subject.frozen() as module:
        loss = torch.nn.functional.cross_entropy(module(x), target, reduction="none")
        (expected,) = torch.autograd.grad((loss * weight).sum(), (x,))
    found = Engine(subject, batch=5).gradient(images.x, target, weight)
    torch.testing.assert_close(found.images, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.loss, loss.detach(), rtol=1e-4, atol=1e-5)
    assert found.hit.tolist() == (subject.logits(images.x).argmax(1) == target).tolist()
    assert all(part.training for part in subject.module.modules())
    assert all(p.requires_grad and p.grad is None for p in subject.module.parameters())


@pytest.mark.parametrize("message", ["DefaultCPUAllocator: can't allocate memory: you tried", None])
def test_a_batch_that_does_not_fit_is_halved_and_remembered(monkeypatch, tmp_path, message):
    """Nothing is lost, and neither this process nor the next tries so many again."""
    subject, images = make_subject(PlantedNet()), planted_images()
    book = PlanBook(tmp_path / "plans.json")
    engine = Engine(subject, book=book)
    engine.batch = 64
    real, tried = Engine._gradient, []

    def limited(self, plan, x, *rest):
        tried.append(len(x))
        if len(x) > 5:
            raise RuntimeError(message) if message else torch.OutOfMemoryError("CUDA out of memory")
        return real(self, plan, x, *rest)

    monkeypatch.setattr(Engine, "_gradient", limited)
    target, weight = torch.zeros(len(images), dtype=torch.int64), torch.ones(len(images))
    found = engine.gradient(images.x, target, weight)
    assert found.images.shape == images.x.shape and tried[0] == len(images) and engine.batch <= 5
    assert Engine(subject, book=PlanBook(tmp_path / "plans.json")).batch == engine.batch
    monkeypatch.setattr(Engine, "_gradient", lambda *_: (_ for _ in ()).throw(RuntimeError("something else")))
    with pytest.raises(RuntimeError, match="something else"):
        engine.gradient(images.x, target, weight)


def test_a_plan_must_be_clearly_faster():
    """Otherwise noise would choose, and another run would round differently."""
    clock = {"plain": 0.03, "wide": 0.029, "quick": 0.01}
    plans = {name: Plan(batch=number + 1) for number, name in enumerate(clock)}
    seconds = {plan.batch: clock[name] * plan.batch for name, plan in plans.items()}
    now = [0.0]

    def run(plan):
        now[0] += seconds[plan.batch]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trojai_moth.triggers.execution_plan.time.perf_counter", lambda: now[0])
        assert fastest([plans["plain"], plans["wide"]], run) == plans["plain"]
        assert fastest(plans.values(), run) == plans["quick"]


@pytest.mark.parametrize(("precision", "bf16"), [("fp32", True), ("auto", False), ("auto", True), ("compiled", True)])
def test_bf16_is_tried_only_when_asked_for_and_there(monkeypatch, precision, bf16):
    monkeypatch.setattr(engine_module, "has_bf16", lambda device: bf16)
    seen = []
    find_plan(CPU, precision, [4, 12], seen.append)
    assert ("bf16" in {plan.precision for plan in seen}) == (precision != "fp32" and bf16)
    assert {plan.channels_last for plan in seen} == {False, True} and {plan.batch for plan in seen} == {4, 12}


@pytest.mark.parametrize("faster", [True, False])
def test_a_compiled_network_is_taken_where_it_is_faster(monkeypatch, faster):
    monkeypatch.setattr(engine_module, "has_bf16", lambda device: False)
    now, seen = [0.0], []

    def run(plan):
        seen.append(plan)
        now[0] += plan.batch * (0.5 if plan.compiled == faster else 1)

    monkeypatch.setattr("trojai_moth.triggers.execution_plan.time.perf_counter", lambda: now[0])
    assert find_plan(CPU, "compiled", [4], run).compiled is faster
    assert any(plan.compiled for plan in seen)
    seen.clear()
    assert not find_plan(CPU, "auto", [4], run).compiled and not any(plan.compiled for plan in seen)


def test_what_can_not_be_compiled_runs_as_it_is(monkeypatch):
    def run(plan):
        if plan.compiled:
            raise OSError("no compiler")

    monkeypatch.setattr(engine_module, "has_bf16", lambda device: False)
    assert not find_plan(CPU, "compiled", [4], run).compiled


def test_a_compiled_network_gives_the_same_gradients(monkeypatch):
    """With a compiler that only traces: what others make of the trace is theirs, that we run it is ours."""
    ran = []

    def compiler(graph, inputs):
        ran.append(len(inputs))
        return graph.forward

    def compiled(module, device):
        return torch.compile(module, backend=compiler, dynamic=True)

    monkeypatch.setattr(engine_module, "compiled", compiled)
    subject, images = trained_subject(), square_images(4, seed=3)
    target, weight = torch.zeros(len(images), dtype=torch.int64), torch.ones(len(images))
    book = PlanBook(None)
    engine = Engine(subject, book=book)
    expected = engine.gradient(images.x, target, weight)
    assert not ran
    engine.plan = dataclasses.replace(engine.plan, compiled=True)
    found = engine.gradient(images.x, target, weight)
    assert ran and torch.allclose(found.images, expected.images, atol=1e-6) and torch.equal(found.hit, expected.hit)
    with torch.no_grad():
        for parameter in subject.module.parameters():
            parameter.mul_(0.5)
    engine.refresh()  # the trace reads the weights that the network has now
    moved = engine.gradient(images.x, target, weight).images
    assert torch.allclose(moved, Engine(subject, book=book).gradient(images.x, target, weight).images, atol=1e-6)
    assert not torch.allclose(moved, expected.images, atol=1e-6)
    assert engine.in_fp32().plan.compiled is False


def test_plans_are_remembered_and_a_damaged_book_is_empty(tmp_path):
    path, plan = tmp_path / "cache" / "plans.json", Plan(channels_last=True, precision="bf16", threads=2, batch=32)
    PlanBook(path).put("a", plan)
    assert PlanBook(path).get("a", lambda: pytest.fail("it is there")) == plan
    path.write_text('{"plans": {"a": {"batch": -1}}}')
    assert PlanBook(path).get("a", lambda: Plan()) == Plan()
    assert PlanBook(None).get("a", lambda: plan) == plan
    (tmp_path / "file").touch()
    PlanBook(tmp_path / "file" / "plans.json").put("a", plan)  # nowhere to write is no reason to stop


@pytest.mark.parametrize("plan", ['{"threads": 1000000}', '{"batch": 1e12}', "[" * 9999, '{"threads": -1}', "9" * 5000])
def test_a_plan_that_is_none_is_said_once_and_probed_anew(tmp_path, caplog, plan):
    path = tmp_path / "plans.json"
    path.write_text(f'{{"plans": {{"a": {plan}}}}}')
    assert PlanBook(path).get("a", lambda: Plan(batch=8)) == Plan(batch=8)
    (line,) = caplog.messages
    assert line.startswith(f"{path}: ") and line.endswith("delete this file")
    assert PlanBook(path).get("a", lambda: pytest.fail("it was written anew")) == Plan(batch=8)


def test_a_plan_never_takes_more_threads_than_there_are():
    before = torch.get_num_threads()
    with threads(4096, torch.device("cpu")):
        assert torch.get_num_threads() == before


def test_processes_that_probe_at_the_same_time_take_the_same_plan(tmp_path):
    """Else two workers would round in different ways, and their models' results would depend on who had them."""
    path, first, second = tmp_path / "plans.json", Plan(batch=32), Plan(channels_last=True)
    one, two = PlanBook(path), PlanBook(path)

    def while_the_other_probes():
        assert one.get("a", lambda: first) == first
        return second

    assert two.get("a", while_the_other_probes) == first
    one.put("b", second)
    assert two.get("b", lambda: pytest.fail("it is there")) == second
    two.put("c", first)
    assert PlanBook(path).get("b", lambda: pytest.fail("it was overwritten")) == second


def test_the_training_plan_leaves_the_weights(probed):
    subject = trained_subject()
    before = {name: tensor.clone() for name, tensor in subject.module.state_dict().items()}
    assert training_plan(subject, "auto", 8).batch == 8
    assert all(torch.equal(tensor, before[name]) for name, tensor in subject.module.state_dict().items())
    assert all(parameter.grad is None for parameter in subject.module.parameters())


def bf16_book(path, subject):
    """A book that says bf16 whatever is faster."""
    book = PlanBook(path)
    engine = Engine(subject, "auto", book=book)
    book.put(engine._key, dataclasses.replace(engine.plan, precision="bf16"))
    return book


def test_what_is_found_in_bf16_holds_in_fp32(tmp_path):
    module = with_statistics(build_architecture("squeezenetv1_1", 3))
    subject = Subject("x", module, "squeezenetv1_1", 3, Preprocessing(stored_size=32, size=32), CPU, "")
    x, y = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(3)), torch.arange(3).repeat(2)
    task = make_task(y, [(v, t) for v in range(3) for t in range(3) if v != t])
    engine = Engine(subject, "auto", book=bf16_book(tmp_path / "plans.json", subject))
    settings = InversionSettings(steps=12, precision="auto")
    result = invert(subject, x, task, settings, random_start(task, (3, 32, 32), 0), engine=engine)
    assert not engine.exact and engine.in_fp32().exact
    success = trigger_success(subject, x, result)
    torch.testing.assert_close(result.success[result.converged], success[result.converged])
    assert bool((success[result.converged] >= settings.success_bound - 1e-6).all()) and bool(result.converged.any())


def test_a_trigger_that_fails_in_fp32_is_searched_on_or_given_up(tmp_path, monkeypatch):
    """Here bf16 is made to lie: it says that everything works."""
    subject, images = make_subject(PlantedNet()), planted_images()
    task = make_task(images.y, [(0, 1), (1, 2)])
    engine = Engine(subject, "auto", book=bf16_book(tmp_path / "plans.json", subject))
    real = Engine._gradient

    def liar(self, plan, *rest):
        found = real(self, dataclasses.replace(plan, precision="fp32"), *rest)
        return found if plan.precision == "fp32" else dataclasses.replace(found, hit=torch.ones_like(found.hit))

    monkeypatch.setattr(Engine, "_gradient", liar)
    settings = InversionSettings(steps=40, precision="auto", initial_cost=10.0)
    start = tuple(0.01 * part for part in random_start(task, subject.shape, 0))
    unchecked = invert(subject, images.x, task, dataclasses.replace(settings, recheck_steps=0), start, engine=engine)
    assert unchecked.converged.all() and not trigger_success(subject, images.x, unchecked).any()
    few = invert(subject, images.x, task, dataclasses.replace(settings, recheck_steps=1), start, engine=engine)
    assert not few.converged.any() and not few.success.any()
    settings = dataclasses.replace(settings, recheck_steps=200)
    mended = invert(subject, images.x, task, settings, start, initial_cost=torch.full((2,), 1e-3), engine=engine)
    assert mended.converged.all() and (trigger_success(subject, images.x, mended) >= 0.9).all()


@pytest.mark.parametrize(("constant", "bf16"), [(0.0, True), (1e4, False)])
def test_bf16_is_left_where_it_cannot_tell_classes_apart(tmp_path, constant, bf16):
    """A constant on all logits changes no decision, but takes all digits that bf16 has."""
    subject, images = trained_subject(), square_images(4, seed=1)
    with torch.no_grad():
        subject.module.body[-1].bias += constant
    engine = Engine(subject, "auto", book=bf16_book(tmp_path / "plans.json", subject))
    assert engine.faithful(images.x).exact is not bf16
    task = make_task(images.y, [(0, 1), (1, 2)])
    settings, start = InversionSettings(steps=40, precision="auto"), random_start(task, subject.shape, 0)
    found = invert(subject, images.x, task, settings, start, engine=engine)
    expected = invert(subject, images.x, task, dataclasses.replace(settings, precision="fp32"), start)
    torch.testing.assert_close(found.size, expected.size, rtol=0.1, atol=0.1)
