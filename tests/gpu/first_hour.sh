#!/bin/bash
# The first hour of dualformer on a GPU: bash tests/gpu/first_hour.sh part1|part2|part3|part4
#   part1 install, ceilings, kernels against float64, golden logits, the tests     part2 speed.py kernels + forward
#   part3 training, profiles, memory                 part4 predict, train, torchrun, NCCL, CUDA graphs, compile, full memory
# Beside this file, where the machine lacks packages: wheels/*.whl. Every step has a limit of its own and a failing one stops nothing. Results: $OUT (3 files).
# A dry run without a GPU: DEV=cpu QUICK=1 PY=.venv/bin/python OUT=out bash tests/gpu/first_hour.sh part1
set -u
PART=${1:?part1, part2, part3 or part4}
DEV=${DEV:-cuda}; QUICK=${QUICK:-}; PY=${PY:-python3}; OUT=${OUT:-/tmp/gpu_out}
SLOW=${SLOW:-1}                          # times that every limit is multiplied by, for a dry run on a busy machine
LIMIT=$((SLOW * ${LIMIT:-560}))          # seconds of this part
HERE=$(cd "$(dirname "$0")" && pwd)
cd "$HERE/../.."
ROOT=$PWD; LOGS=/tmp/gpu_logs/$PART; WORK=/tmp/gpu_work
BEGIN=$(date +%s)
mkdir -p "$OUT" "$LOGS" "$WORK"; SUMMARY=$LOGS/summary.txt; : > "$SUMMARY"
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 DUALFORMER_OFFLINE=1 TRITON_CACHE_DIR=${TRITON_CACHE_DIR:-/tmp/triton_cache}
export TORCHINDUCTOR_CACHE_DIR=/tmp/inductor_cache HOME=${HOME:-/root}

say() { echo "$*" | tee -a "$SUMMARY"; }
pack() { cp "$SUMMARY" "$OUT/$PART-summary.txt"; tar czf "$OUT/$PART-logs.tgz" -C /tmp/gpu_logs "$PART" 2>/dev/null; }
left() { echo $((LIMIT - ($(date +%s) - BEGIN))); }
# step NAME SECONDS LINES COMMAND...: run with a limit, keep the whole log, show its last lines
step() {
  local name=$1 most=$((SLOW * $2)) lines=$3; shift 3
  local rest; rest=$(left); [ "$most" -gt "$((rest - 4))" ] && most=$((rest - 4))
  if [ "$most" -lt 8 ]; then say "== $name: skipped, $rest s left"; pack; return; fi
  local t0; t0=$(date +%s)
  timeout -k 5 "$most" "$@" > "$LOGS/$name.log" 2>&1; local rc=$?
  say "== $name: rc $rc, $(($(date +%s) - t0)) s (limit $most)"
  tail -n "$lines" "$LOGS/$name.log" | cut -c1-400 | tee -a "$SUMMARY"
  pack
}
quick() { if [ -n "$QUICK" ]; then echo "$2"; else echo "$1"; fi; }   # quick VALUE VALUE_IN_A_DRY_RUN

setup() {
  if ls "$HERE"/wheels/*.whl > /dev/null 2>&1 && [ -z "$QUICK" ]; then
    timeout 100 "$PY" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target /tmp/site "$HERE"/wheels/*.whl 2>&1 | tail -3
  fi
  export PYTHONPATH="$ROOT:/tmp/site"
  [ "$DEV" = cuda ] && nvidia-smi --query-gpu=name,driver_version,memory.total,memory.used,clocks.sm --format=csv,noheader | tee -a "$SUMMARY"
  say "setup: $(( $(date +%s) - BEGIN )) s"
}

helpers() {
cat > $WORK/common.py <<'EOF'
import os, sys, json, time, statistics
sys.path.insert(0, os.path.join(os.getcwd(), "tests", "benchmarks"))
import torch
DEV = torch.device(os.environ.get("DEV", "cuda")); QUICK = bool(os.environ.get("QUICK")); GPU = DEV.type == "cuda"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
def sync():
    if GPU: torch.cuda.synchronize()
def ms(function, rounds=20, warm=3):
    """(median ms of a run from idle to idle, ms until the CPU has launched it)"""
    for _ in range(1 if QUICK else warm): function()
    sync(); total, launched = [], []
    for _ in range(1 if QUICK else rounds):
        t = time.perf_counter(); function(); l = time.perf_counter(); sync(); total.append(time.perf_counter() - t); launched.append(l - t)
    return 1e3 * statistics.median(total), 1e3 * statistics.median(launched)
def clips(b, dtype=torch.float32, small=False):
    size = (16, 96, 96) if small else (32, 224, 224)
    x = torch.randn(b, *size, 3, generator=torch.Generator().manual_seed(0)).to(DEV, dtype)
    return x.permute(0, 4, 1, 2, 3)
def preset(size): return "camera-motion" if QUICK else size
def build(size, **kw):
    from dualformer_cli.config.load import load_config
    from dualformer_cli.engine.build import build_model
    torch.manual_seed(0)
    over = [f"runtime.kernels={kw['kernels']}"] if "kernels" in kw else []
    config = load_config(preset(size), overrides=over, environ={}).config
    return build_model(config.model, config.data).to(DEV)
def inputs(b, dtype=torch.float32): return clips(b, dtype, small=QUICK)
EOF
cat > $WORK/env.py <<'EOF'
from common import *
import platform, importlib.metadata as m
print("python", platform.python_version(), "cores", os.cpu_count(), "affinity", len(os.sched_getaffinity(0)))
for n in "torch torchvision triton numpy typer rich einops timm av decord fvcore safetensors pillow pyyaml pytest pytest-xdist hypothesis setuptools".split():
    try: print(n, m.version(n), end="; ")
    except Exception: print(n, "MISSING", end="; ")
print()
import dualformer_cli, dualformer_cli.kernels.window_attention; print(dualformer_cli.__file__)
for name in ("av", "decord", "fvcore.nn", "typer", "timm", "cv2"):
    try: __import__(name)
    except Exception as e: print("import", name, "FAILED", repr(e)[:200])
if GPU:
    p = torch.cuda.get_device_properties(0); print(p.name, p.multi_processor_count, "SM", p.total_memory / 2**30, "GiB", "capability", (p.major, p.minor), "cuda", torch.version.cuda, "cudnn", torch.backends.cudnn.version(), "nccl", torch.cuda.nccl.version())
    print("tf32: matmul", torch.backends.cuda.matmul.allow_tf32, "cudnn", torch.backends.cudnn.allow_tf32)
n = 2**20 if QUICK else 2**31
x = torch.randint(0, 100, (n,), dtype=torch.uint8, device=DEV); y = torch.empty_like(x)
t = ms(lambda: y.copy_(x))[0]; print(f"copy: {2 * n / t / 1e9:.2f} TB/s")
side = 256 if QUICK else 8192
for name, dtype, tf32 in (("bf16", torch.bfloat16, 0), ("fp16", torch.float16, 0), ("tf32", torch.float32, 1), ("fp32", torch.float32, 0)):
    torch.backends.cuda.matmul.allow_tf32 = bool(tf32)
    a = torch.randn(side, side, device=DEV, dtype=dtype); b = torch.randn(side, side, device=DEV, dtype=dtype)
    t = ms(lambda: a @ b, 5)[0]; print(f"product {name} {side}: {2 * side**3 / t / 1e9:.0f} TFLOP/s")
torch.backends.cuda.matmul.allow_tf32 = False
# the model's own products and passes (batch 8, tiny and base): rate and bandwidth
for rows, k, nn in ((8 * 50176, 64, 256), (8 * 50176, 256, 64), (8 * 12544, 128, 512), (8 * 3136, 256, 1024), (8 * 784, 512, 2048), (8 * 50176, 128, 512), (8 * 3136, 512, 2048)):
    rows = rows // 64 if QUICK else rows
    a, w, c = (torch.randn(s, device=DEV, dtype=torch.bfloat16) for s in ((rows, k), (nn, k), (nn,)))
    t = ms(lambda: torch.nn.functional.linear(a, w, c))[0]; print(f"linear bf16 {rows}x{k}->{nn}: {1e3*t:.0f} us, {2*rows*k*nn/t/1e9:.0f} TFLOP/s, {2*rows*(k+nn)/t/1e9:.2f} TB/s")
a = torch.randn(8 * 50176 // (64 if QUICK else 1), 256, device=DEV, dtype=torch.bfloat16)
for name, f, k in (("gelu", lambda: torch.nn.functional.gelu(a), 2), ("layer_norm", lambda: torch.nn.functional.layer_norm(a, (256,)), 2), ("add", lambda: a + a, 2)):
    t = ms(f)[0]; print(f"{name}: {1e3*t:.0f} us, {k * a.nbytes / t / 1e9:.2f} TB/s")
if GPU:
    s = torch.zeros(1, device=DEV)
    def many():
        for _ in range(1000): s.add_(1)
    print(f"launch: {ms(many)[0]:.2f} us an operation")
EOF
cat > $WORK/golden.py <<'EOF'
"""Golden logits on the device: fp32 with and without TF32, fp16, bf16, autocast, kernels and PyTorch."""
from common import *
from published_baseline import pattern, pattern_baseline
from dualformer_cli import create_model, load_weights
from pathlib import Path
G = json.loads(Path("tests/golden/golden_model.json").read_text())
def deviation(v, e):
    v = v.double().cpu().flatten()[e["index"]]; return float((v - torch.tensor(e["value"], dtype=torch.float64)).abs().max() / (e["absmax"] or 1))
failed = 0
for size in ("tiny",) if QUICK else ("tiny", "small"):
    e = G[size]; state = pattern_baseline(size, num_classes=e["num_classes"]).state_dict()
    x = pattern(e["input"], (1, 3, 32, 224, 224)).float().to(DEV)
    for kernels in ("auto", "torch"):
        for name, dtype, autocast, tf32, bound in (("fp32", torch.float32, None, 0, 1e-4), ("fp32 TF32", torch.float32, None, 1, 1e-2), ("fp16", torch.float16, None, 0, 1e-2),
                ("bf16", torch.bfloat16, None, 0, 2e-2), ("bf16 autocast", torch.float32, torch.bfloat16, 0, 2e-2), ("fp16 autocast", torch.float32, torch.float16, 0, 1e-2), ("fp64", torch.float64, None, 0, 1e-9)):
            if QUICK and name not in ("fp32", "bf16"): continue
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = bool(tf32)
            try:
                os.environ["DUALFORMER_RUNTIME__KERNELS"] = kernels
                model = create_model(size, num_classes=e["num_classes"]); load_weights(model, state); model = model.to(DEV, dtype).eval()
                with torch.inference_mode(), torch.autocast(DEV.type, autocast or torch.bfloat16, enabled=autocast is not None):
                    stages = model.forward_stages(x.to(dtype)); logits = model.classify(model.norm(stages[-1]))
                d = deviation(logits, e["logits"]); top = logits[0].float().topk(5).indices.tolist() == e["top5_index"]
                of = [deviation(s.permute(0, 4, 1, 2, 3), e["stages"][f"stage{i}"]) for i, s in enumerate(stages)]
                ok = d < bound; failed += not ok
                print(f"{'ok  ' if ok else 'FAIL'} {size} {kernels:6s} {name:14s} logits {d:.1e} (bound {bound:g}) top5 {'same' if top else 'other'} stages {' '.join(f'{v:.1e}' for v in of)}", flush=True)
            except Exception as error:
                failed += 1; print(f"FAIL {size} {kernels} {name}: {type(error).__name__}: {str(error)[:300]}", flush=True)
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
# gradients of the whole model: kernels against PyTorch, and twice the same bits
os.environ.pop("DUALFORMER_RUNTIME__KERNELS", None)
def gradients(kernels, dtype):
    torch.manual_seed(0); model = build("tiny", kernels=kernels).train()
    for m in model.modules():
        if hasattr(m, "drop_prob"): m.drop_prob = 0.0
    model.dropout.p = 0.0
    with torch.autocast(DEV.type, dtype, enabled=dtype != torch.float32): out = model(inputs(2))
    torch.nn.functional.cross_entropy(out.float(), torch.arange(2, device=DEV)).backward()
    return {n: p.grad.detach().double() for n, p in model.named_parameters() if p.grad is not None}
for dtype in (torch.float32, torch.bfloat16):
    try:
        a, b, c = gradients("auto", dtype), gradients("torch", dtype), gradients("auto", dtype)
        worst = max(((a[n] - b[n]).norm() / b[n].norm().clamp(min=1e-12), n) for n in b)
        differs = [n for n in a if not torch.equal(a[n], c[n])]
        print(f"gradients {dtype}: kernels against PyTorch, worst relative {worst[0]:.1e} at {worst[1]}; two runs differ in {len(differs)} of {len(a)} tensors {differs[:2]}", flush=True)
    except Exception as error:
        failed += 1; print(f"FAIL gradients {dtype}: {type(error).__name__}: {str(error)[:300]}", flush=True)
sys.exit(bool(failed))
EOF
cat > $WORK/profiles.py <<'EOF'
"""Where the time goes: forward and training step of one size, profiler tables, launch time, memory."""
from common import *
from torch.profiler import profile, ProfilerActivity
size, b = sys.argv[1], int(sys.argv[2]); folder = sys.argv[3]
acts = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if GPU else [])
def table(name, function, rounds=5):
    total, launch = ms(function)
    with profile(activities=acts, record_shapes=False) as p:
        for _ in range(1 if QUICK else rounds): function()
        sync()
    key = "self_device_time_total" if GPU else "self_cpu_time_total"
    rows = p.key_averages()
    text = rows.table(sort_by=key, row_limit=40, max_name_column_width=70)
    open(f"{folder}/profile-{size}-{name}.txt", "w").write(text)
    n = 1 if QUICK else rounds
    if GPU:
        gpu = sum(getattr(e, "self_device_time_total", 0) for e in rows if str(e.device_type).endswith("CUDA")) / n / 1e3
        kernels = sum(e.count for e in rows if str(e.device_type).endswith("CUDA")) / n
        print(f"{size} {name} batch {b}: {total:.2f} ms a run, CPU launches for {launch:.2f} ms, GPU busy {gpu:.2f} ms ({100*gpu/total:.0f} %), {kernels:.0f} kernels and copies", flush=True)
        best = sorted((e for e in rows if str(e.device_type).endswith("CUDA")), key=lambda e: -e.self_device_time_total)[:24]
        for e in best: print(f"   {e.self_device_time_total/n/1e3:8.3f} ms {e.count/n:6.1f} x  {e.key[:110]}", flush=True)
    else: print(f"{size} {name}: {total:.1f} ms, {len(rows)} kinds of operations")
model = build(size)
from copy import deepcopy
fast = deepcopy(model).to(torch.bfloat16).eval(); x = inputs(b, torch.bfloat16)
def forward():
    with torch.inference_mode(): return fast(x)
table("forward-bf16", forward)
if GPU and not QUICK:
    from dualformer_cli.engine.scoring.scorer import Scorer
    import numpy as np
    scorer = Scorer(fast, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]); views = np.random.default_rng(0).integers(0, 256, (4, 32, 224, 224, 3), dtype=np.uint8)
    table("score-4-views", lambda: scorer.score(views))
del fast
clip = inputs(b); target = torch.arange(b, device=DEV)
for precision in ("bf16", "fp32"):
    if QUICK and precision == "fp32": continue
    m = deepcopy(model).train(); opt = torch.optim.AdamW(m.parameters(), lr=1e-5, fused=GPU)
    def step():
        with torch.autocast(DEV.type, torch.bfloat16, enabled=precision == "bf16"): out = m(clip)
        torch.nn.functional.cross_entropy(out.float(), target).backward(); opt.step(); opt.zero_grad(set_to_none=True)
    step()
    if GPU: torch.cuda.reset_peak_memory_stats()
    step(); sync()
    if GPU: print(f"{size} training {precision} batch {b}: peak {torch.cuda.max_memory_allocated()/2**20:,.0f} MiB, reserved {torch.cuda.max_memory_reserved()/2**20:,.0f}")
    table(f"training-{precision}", step)
    del m, opt
EOF
cat > $WORK/memory.py <<'EOF'
"""Peak memory and time of training steps: sizes, precisions, checkpointing; the largest batch of the table that fits."""
from common import *
failed = False
for size in ("tiny",) if QUICK else ("tiny", "small", "base"):
    for precision, checkpointing, b in (("bf16", False, 8), ("bf16", True, 8), ("fp32", False, 8), ("bf16", False, 32), ("bf16", False, 64)):
        if QUICK and b > 8: continue
        try:
            m = build(size).train(); m.set_gradient_checkpointing(checkpointing); opt = torch.optim.AdamW(m.parameters(), lr=1e-5, fused=GPU)
            x = inputs(2 if QUICK else b); t = torch.zeros(len(x), dtype=torch.long, device=DEV)
            def step():
                with torch.autocast(DEV.type, torch.bfloat16, enabled=precision == "bf16"): out = m(x)
                torch.nn.functional.cross_entropy(out.float(), t).backward(); opt.step(); opt.zero_grad(set_to_none=True)
            step(); sync()
            if GPU: torch.cuda.reset_peak_memory_stats()
            took, launch = ms(step, 5, 1)
            peak = torch.cuda.max_memory_allocated() / 2**20 if GPU else 0
            print(f"{size} {precision} checkpointing {checkpointing} batch {b}: {took:.1f} ms a step (CPU launches {launch:.1f}), {1e3*len(x)/took:.0f} clips/s, peak {peak:,.0f} MiB", flush=True)
        except torch.OutOfMemoryError as e: print(f"{size} {precision} {checkpointing} {b}: out of memory: {str(e)[:160]}", flush=True)
        except Exception as e: failed = True; print(f"{size} {precision} {checkpointing} {b}: FAIL {type(e).__name__}: {str(e)[:300]}", flush=True)
        m = opt = x = step = None
        if GPU: torch.cuda.empty_cache()
sys.exit(failed)
EOF
cat > $WORK/once.py <<'EOF'
from common import *
model = build("tiny").to(torch.bfloat16).eval(); x = inputs(8, torch.bfloat16)
with torch.inference_mode(): model(x); sync()
EOF
cat > $WORK/graphs.py <<'EOF'
"""CUDA graphs and torch.compile of the forward pass and of a training step."""
from common import *
failed = False
for size in ("tiny",) if QUICK else ("tiny", "base"):
    model = build(size).to(torch.bfloat16).eval()
    for b in (1,) if QUICK else (1, 4, 8, 16):
        x = inputs(b, torch.bfloat16)
        with torch.inference_mode():
            eager = ms(lambda: model(x)); y = model(x).clone()
            line = f"{size} batch {b}: eager {eager[0]:.2f} ms (CPU {eager[1]:.2f})"
            if GPU:
                try:
                    side = torch.cuda.Stream(); side.wait_stream(torch.cuda.current_stream())
                    with torch.cuda.stream(side): model(x)
                    torch.cuda.current_stream().wait_stream(side); g = torch.cuda.CUDAGraph()
                    with torch.cuda.graph(g): out = model(x)
                    t = ms(g.replay); g.replay(); sync()
                    line += f", graph {t[0]:.2f} ms, {eager[0]/t[0]:.2f} times, {1e3*b/t[0]:.0f} views/s, same bits {torch.equal(out, y)}"
                    del g
                except Exception as e: failed = True; line += f", graph FAIL {type(e).__name__}: {str(e)[:200]}"
            print(line, flush=True)
for size, modes in (("tiny", (None, "reduce-overhead")),):
    for mode in modes:
        try:
            torch.compiler.reset(); model = build(size).to(torch.bfloat16).eval(); x = inputs(1 if QUICK else 8, torch.bfloat16)
            t0 = time.perf_counter(); f = torch.compile(model, mode=mode, dynamic=False, backend="aot_eager" if QUICK else "inductor")  if not (QUICK and mode) else model
            with torch.inference_mode(): f(x); sync(); first = time.perf_counter() - t0; t = ms(lambda: f(x)); d = (f(x) - model(x)).abs().max().item()
            print(f"compile {mode} {size}: first {first:.0f} s, {t[0]:.2f} ms (CPU {t[1]:.2f}), largest difference {d:.2e}", flush=True)
        except Exception as e: failed = True; print(f"compile {mode} {size}: FAIL {type(e).__name__}: {str(e)[:300]}", flush=True)
if not QUICK:
    try:
        torch.compiler.reset(); m = build("tiny").train(); opt = torch.optim.AdamW(m.parameters(), lr=1e-5, fused=GPU); f = torch.compile(m, dynamic=False); x = inputs(8); t = torch.arange(8, device=DEV)
        def step():
            with torch.autocast(DEV.type, torch.bfloat16): out = f(x)
            torch.nn.functional.cross_entropy(out.float(), t).backward(); opt.step(); opt.zero_grad(set_to_none=True)
        t0 = time.perf_counter(); step(); sync(); print(f"compiled training: first {time.perf_counter()-t0:.0f} s, then {ms(step, 10)[0]:.2f} ms", flush=True)
    except Exception as e: failed = True; print(f"compiled training: FAIL {type(e).__name__}: {str(e)[:300]}", flush=True)
sys.exit(failed)
EOF
cat > $WORK/nccl.py <<'EOF'
"""Our exchanges through NCCL in a world of one: every path that two ranks would take."""
from common import *
import tempfile, torch.distributed as dist
os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
from dualformer_cli.engine.parallel import batch_norm, reductions
if GPU: torch.cuda.set_device(0)
dist.init_process_group("cpu:gloo,cuda:nccl" if GPU else "gloo", init_method=f"file://{tempfile.mktemp()}", rank=0, world_size=1)
get_world_size, dist.get_world_size = dist.get_world_size, lambda *_: 2  # nothing is skipped; one rank, whose sums are its own
print("any_rank", reductions.any_rank(True), reductions.any_rank(False)); print("sum cpu", reductions.sum_over_ranks(torch.ones(2)), "sum gpu", reductions.sum_over_ranks(torch.ones(2, device=DEV)))
model = build("tiny").train(); model(inputs(2)).sum().backward()
before = [p.grad.clone() for p in model.parameters() if p.grad is not None]; reductions.sum_gradients(model.parameters())
print("gradients unchanged", all(torch.equal(a, p.grad) for a, p in zip(before, (p for p in model.parameters() if p.grad is not None))))
batch_norm.average_running_statistics(model); print("buffers halved")
dist.get_world_size = get_world_size; objects = [None]; dist.all_gather_object(objects, {"rank": 0}); carrier = ["x"]; dist.broadcast_object_list(carrier, src=0); print("objects", objects, carrier)
batch_norm.convert_batch_norm(build("tiny").train(), "synchronized")
bn = batch_norm.SynchronizedBatchNorm(4).to(DEV).train(); x = torch.randn(2, 4, 3, 3, 3, device=DEV, requires_grad=True)
want = torch.nn.functional.batch_norm(x, None, None, bn.weight, bn.bias, True); got = bn._forward_together(x); got.sum().backward()
print("synchronized BatchNorm", float((want - got).detach().abs().max()))
if GPU: print("nccl", torch.cuda.nccl.version())
dist.destroy_process_group(); print("done")
EOF
cat > $WORK/full_memory.py <<'EOF'
"""What happens when the card is full: the scorer halves its batch; streams keep copies and computing in order."""
from common import *
import numpy as np, logging; logging.basicConfig(level=logging.WARNING)
from dualformer_cli.engine.scoring.scorer import Scorer
model = build("tiny").to(torch.bfloat16 if GPU else torch.float32).eval(); T = 16 if QUICK else 32; S = 96 if QUICK else 224
rng = np.random.default_rng(0); views = rng.integers(0, 256, (3 if QUICK else 32, T, S, S, 3), dtype=np.uint8)
kw = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
a, _ = Scorer(model, **kw).score(views)
if GPU:
    for share in (0.02, 0.01, 0.006):
        torch.cuda.empty_cache(); torch.cuda.set_per_process_memory_fraction(share); s = Scorer(model, **kw)
        try: b, _ = s.score(views); print(f"{share*140:.1f} GiB: batch {s.batch_size}, largest difference {np.abs(a-b).max():.1e}")
        except Exception as e: print(f"{share}: {type(e).__name__}: {str(e)[:200]}")
    torch.cuda.set_per_process_memory_fraction(1.0)
s = Scorer(model, **kw)
print("ten times the same:", all(np.array_equal(s.score(views)[0], a) for _ in range(2 if QUICK else 10)))
EOF
}

DF="$PY -m dualformer_cli"
export DEV QUICK
setup; helpers
case $PART in
part1)
  step env 90 40 $PY $WORK/env.py
  if [ "$DEV" = cuda ]; then
    CUBLAS_WORKSPACE_CONFIG=:4096:8 step kernels-accuracy 170 25 $PY -m pytest tests/kernels/accuracy.py -n 8 --maxprocesses=8 --dist=load --tb=short -p no:cacheprovider -rfE
  else
    TRITON_INTERPRET=1 CUBLAS_WORKSPACE_CONFIG=:4096:8 step kernels-accuracy 60 5 $PY -m pytest tests/kernels/accuracy.py -n 0 --tb=short -p no:cacheprovider -rfE -k "depthwise_conv3d_of_clips"
  fi
  step golden 140 40 $PY $WORK/golden.py
  if [ -z "$QUICK" ]; then
    step tests 300 40 $PY -m pytest tests/engine tests/commands tests/model tests/kernels/test_backend.py tests/benchmarks -n 14 --maxprocesses=14 --dist=loadfile --tb=line -p no:cacheprovider -rfE --deselect tests/test_packaging.py
  else
    step tests 60 5 $PY -m pytest tests/engine/parallel/test_upload.py tests/kernels/test_backend.py -n 2 --maxprocesses=14 --dist=loadfile --tb=line -p no:cacheprovider -rfE
  fi ;;
part2)
  S=tests/benchmarks/speed.py
  step forward-bf16 235 60 $PY $S --device $DEV --parts forward --size $(quick "tiny small base" tiny) --precision bf16 --batch-size $(quick "1 8 32" 1) --rounds $(quick 10 1) --minutes $(quick 3.6 0.3) --json $LOGS/forward-bf16.json
  step kernels-tiny 120 60 $PY $S --device $DEV --parts kernels --size tiny --precision $(quick "bf16" bf16) --batch-size $(quick 8 1) --stages $(quick "0 1 2 3" 3) --rounds $(quick 10 1) --minutes $(quick 1.8 0.2) --json $LOGS/kernels-tiny.json
  step forward-fp32 110 30 $PY $S --device $DEV --parts forward --size $(quick "tiny base" tiny) --precision fp32 --batch-size $(quick 8 1) --rounds $(quick 5 1) --minutes $(quick 1.6 0.3) --json $LOGS/forward-fp32.json
  step kernels-more 90 60 $PY $S --device $DEV --parts kernels --size $(quick base tiny) --precision $(quick "bf16 fp32" fp32) --batch-size $(quick 8 1) --stages $(quick "0 2" 3) --rounds $(quick 5 1) --minutes $(quick 1.3 0.2) --json $LOGS/kernels-more.json ;;
part3)
  step profile-tiny 100 110 $PY $WORK/profiles.py tiny 8 $LOGS
  step memory 140 30 $PY $WORK/memory.py
  step training 190 30 $PY tests/benchmarks/speed.py --device $DEV --parts training --size $(quick "tiny small base" tiny) --precision bf16 --batch-size $(quick 8 1) --rounds $(quick 8 1) --minutes $(quick 2.9 0.4) --json $LOGS/training.json
  step profile-base 90 110 $PY $WORK/profiles.py base 8 $LOGS
  command -v ncu > /dev/null && [ "$DEV" = cuda ] && step counters 60 80 ncu --clock-control none --section SpeedOfLight --section Occupancy --section LaunchStats -k "regex:window_attention_forward|depthwise_conv3d_forward|pyramid_pool_forward" -c 8 $PY $WORK/once.py ;;
part4)
  C=$WORK/clips; rm -rf $C $WORK/run*; mkdir -p $C
  cat > $WORK/motion.yaml <<'EOF'
extends: camera-motion
model: {embed_dims: [48, 64], depths: [2, 2], num_heads: [2, 2], patch_sizes: [[4, 12, 12], [1, 2, 2]], window_size: [4, 2, 2], fine_grid: [4, 2, 2], coarse_grid: [4, 2, 2]}
data:
  crop_size: 48
  render: {num_clips: 1600, difficulty: 0.0, easy_epochs: 0, without_motion: 0.0, pictures: []}
  train: {short_side: 48}
  test: {short_side: 48, num_clips: 1}
  validation: {short_side: 48}
train: {epochs: 1, batch_size: 16, global_batch_size: 16, repeats: 2, motion_weight: 1.0, ema_decay: 0.0, log_every_steps: 20}
EOF
  "$PY" -c "import cv2" 2> /dev/null && step render 25 2 $PY tests/benchmarks/loader.py --render $C/a.mp4
  [ -s $C/a.mp4 ] || cp dualformer_cli/video/sample_clip/cockatoo.mp4 $C/a.mp4
  for i in $(seq 1 $(quick 127 1)); do cp $C/a.mp4 $C/b$i.mp4; done
  W=$(quick 14 1); TINY=$(quick k400-tiny camera-motion)
  step predict-1 70 12 $DF predict $C/a.mp4 --preset $TINY --weights random --device $DEV -v
  for p in $(quick "bf16 fp32 fp16" fp32); do step predict-$p 45 3 bash -c "time $DF predict $C/a.mp4 --preset $TINY --weights random --device $DEV --precision $p --json | head -c 900"; done
  step predict-many 70 6 bash -c "time $DF predict $C --preset $TINY --weights random --device $DEV --csv $WORK/many.csv --overwrite --set runtime.num_workers=$W > /dev/null"
  step predict-compile 60 6 bash -c "time $DF predict $C/a.mp4 --preset $TINY --weights random --device $DEV $(quick --compile --no-compile) -v"
  step predict-built-in 30 8 $DF predict --preset camera-motion --device $DEV --precision fp32
  step train-200 80 8 $DF train --preset $WORK/motion.yaml --data render:camera-motion --output $WORK/run1 --device $DEV --set runtime.num_workers=$W --set data.render.num_clips=$(quick 1600 32)
  step train-resume 40 5 $DF train --preset $WORK/motion.yaml --data render:camera-motion --output $WORK/run1 --device $DEV --resume --change train.epochs=2 --set runtime.num_workers=$W --set data.render.num_clips=$(quick 1600 32)
  step train-torchrun 60 12 $PY -m torch.distributed.run --standalone --nproc-per-node 1 -m dualformer_cli train --preset $WORK/motion.yaml --data render:camera-motion --output $WORK/run2 --device $DEV --dry-run --set runtime.num_workers=$W
  step train-fp16 40 5 $DF train --preset $WORK/motion.yaml --data render:camera-motion --output $WORK/run3 --device $DEV --precision $(quick fp16 fp32) --set data.render.num_clips=$(quick 400 32) --set runtime.num_workers=$W
  step nccl 40 12 $PY $WORK/nccl.py
  step full-memory 40 12 $PY $WORK/full_memory.py
  step graphs-compile 150 20 $PY $WORK/graphs.py ;;
*) echo "part1, part2, part3 or part4"; exit 2 ;;
esac
say "all of $PART: $(( $(date +%s) - BEGIN )) s"; pack; ls -la "$OUT"
