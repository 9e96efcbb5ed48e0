-- Microseconds a step of every device here, beside PyTorch and scikit-learn on the same machine, in one run.
-- usage: lua5.4 bench.lua PYTHON THREADS SECONDS [DATA]   (run.sh sets the paths and calls it)
local core = require "lavaflow.core"
local here = arg[0]:gsub("[^/]*$", "")
local common = dofile(here .. "common.lua")

local python, threads, seconds, mnist = arg[1], tonumber(arg[2]), tonumber(arg[3]), arg[4]
local ROUNDS = 3

-- A Vulkan device that is the CPU takes part in the first alone. goal: PyTorch's time over that of `cpu`.
local cases = {
  { widths = { 784, 128, 10 }, batch = 64, side = 28, goal = 5, sklearn = true, lavapipe = 1 },
  { widths = { 784, 128, 10 }, batch = 256, side = 28, goal = 2.5, sklearn = true },
  { widths = { 784, 128, 10 }, batch = 1024, side = 28, goal = 1.3, sklearn = true },
  { widths = { 784, 512, 256, 10 }, batch = 128, side = 28, goal = 2, sklearn = true },
  { widths = { 2048, 2048, 2048, 2048, 2048 }, batch = 1024, side = 32, other = 64, rows = 8192, goal = 1 },
}

local function flops(case)
  local sum = -2 * case.widths[1] * case.widths[2] -- the gradient of the inputs is not needed
  for i = 2, #case.widths do sum = sum + 6 * case.widths[i - 1] * case.widths[i] end
  return sum * case.batch
end

local function peer(command) return tonumber((common.run(command .. " 2>/dev/null") or ""):match "^[%d.]+") end
local function torch(case, file, steps)
  return peer(("%s %speer_torch.py %d time %s %d %s %d"):format(python, here, threads,
    table.concat(case.widths, "-"), case.batch, file, steps))
end
local function sklearn(case, file, steps)
  return peer(("OMP_NUM_THREADS=%d OPENBLAS_NUM_THREADS=%d %s %speer_sklearn.py %s %d %s %d"):format(threads, threads,
    python, here, table.concat(case.widths, "-"), case.batch, file, steps))
end

local devices = {}
for _, device in ipairs(core.devices()) do
  if not device.unavailable then
    devices[#devices + 1] = { id = device.id, software = device.name:find "llvmpipe" and true }
    print(("# %s: %s (%s %s)"):format(device.id, device.name, device.driver_name, device.driver_version))
  else
    print(("# %s: skipped: %s"):format(device.id, device.unavailable))
  end
end
local said = common.run(("%s %speer_torch.py %d sgemm 2>/dev/null"):format(python, here, threads)) or ""
local peak, version = said:match "^([%d.]+) ([^\n]+)"
print("# peer: " .. (version or ("skipped: " .. python .. " has no PyTorch")) .. (", %d threads each"):format(threads))
print("# floor: the FLOPs of a step at the rate of a product of 2048 x 2048 matrices" ..
  (peak and (", %.0f GFLOP/s here"):format(peak) or ", which was not measured"))
print(("# %d interleaved rounds; median, least and most; ratio: PyTorch's time over the other's"):format(ROUNDS))
local LINE = "%-24s %-6s %-13s %6s %9s %9s %9s %9s %8s %7s"
print(LINE:format("model", "data", "", "batch", "us/step", "least", "most", "floor", "ratio", "goal"))

local function measure(case, name, file, data)
  case.rows = data.train.rows
  local list = {}
  local function add(label, of_steps, goal)
    local probe = of_steps(8)
    probe = probe and of_steps(math.max(8, math.floor(seconds / 8 * 1e6 / probe)))
    local steps = probe and math.max(8, math.floor(seconds * 1e6 / probe))
    list[#list + 1] = { label = label, goal = goal, run = function() return probe and of_steps(steps) end }
  end
  if version then add("PyTorch", function(steps) return torch(case, file, steps) end) end
  if version and case.sklearn then add("scikit-learn", function(steps) return sklearn(case, file, steps) end) end
  for _, device in ipairs(devices) do
    if not device.software or case.lavapipe then
      add(device.id, function(steps) return (common.train(case, { device.id }, data, steps)) end,
        device.software and case.lavapipe or device.id == "cpu" and case.goal)
    end
  end
  local runs = {}
  for i, one in ipairs(list) do runs[i] = one.run end
  local times = common.interleave(ROUNDS, runs)
  local base = version and #times[1] > 0 and common.median(times[1])
  for i, one in ipairs(list) do
    local middle = #times[i] > 0 and common.median(times[i])
    local function whole(value) return value and ("%.0f"):format(value) or "skipped" end
    print(LINE:format(table.concat(case.widths, "-"), name, one.label, case.batch, whole(middle), whole(times[i][1]),
      whole(times[i][#times[i]]), peak and whole(flops(case) / peak * 1e-3) or "",
      base and middle and ("%.2fx"):format(base / middle) or "", one.goal and ("%.1fx"):format(one.goal) or ""))
  end
end

local folder = common.run "mktemp -d":match "%S+"
for _, case in ipairs(cases) do
  do
    local data <close> = common.make_data(folder, case.rows or 60000, case.side, case.other)
    measure(case, "random", folder .. "/data.h5", data)
  end
  if mnist and case.widths[1] == 784 then
    local data <close> = core.dataset { file = mnist }
    measure(case, "MNIST", mnist, data)
  end
end
os.execute("rm -r " .. folder)
