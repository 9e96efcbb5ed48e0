-- Microseconds a step and rows a second of every device here, beside PyTorch on the same machine, in one run.
-- usage: lua5.4 bench.lua PYTHON THREADS SECONDS   (run.sh sets the paths and calls it)
local core = require "lavaflow.core"
local common = dofile((arg[0]:gsub("[^/]*$", "common.lua")))

local python, threads, seconds = arg[1], tonumber(arg[2]), tonumber(arg[3])
local ROUNDS = 3

local cases = {
  { widths = { 784, 128, 10 }, batch = 64, rows = 60000, side = 28 },
  { widths = { 784, 128, 10 }, batch = 256, rows = 60000, side = 28 },
  { widths = { 784, 128, 10 }, batch = 1024, rows = 60000, side = 28 },
  { widths = { 1024, 1024, 1024 }, batch = 256, rows = 20000, side = 32 },
}

-- Microseconds a step; with `teachers`, of a distillation whose teachers' outputs are computed before.
local function train(case, device, data, steps, teachers)
  return (common.train(case, { device }, data, steps,
    teachers and { teachers = teachers, temperature = 4, alpha = 0.9, live = false }))
end

local function torch(case, steps, with)
  local text = common.run(("%s %s/peer_torch.py %s %d %d %d %d 2>/dev/null"):format(
    python, arg[0]:match "^(.*)/[^/]*$", table.concat(case.widths, "-"), case.batch, case.rows, steps, with))
  if not text then return nil end
  return tonumber(text:match "^[%d.]+"), text:match "PyTorch [^\n]+"
end

-- More threads are not always faster in PyTorch: the peer is the faster of one thread and all.
local function choose_peer(case)
  local best, best_time
  for _, with in ipairs(threads > 1 and { 1, threads } or { 1 }) do
    local time = torch(case, 50, with)
    if not best or time < best_time then best, best_time = with, time end
  end
  return best, math.max(10, math.floor(seconds * 1e6 / best_time))
end

local function row(name, widths, values, case, ratio)
  local middle = common.median(values)
  print(("%-16s %-12s %6d %10.0f %10.0f %10.0f %12.0f %9s"):format(widths, name, case.batch, middle, values[1],
    values[#values], case.batch / middle * 1e6, ratio or ""))
end

local devices = {}
for _, device in ipairs(core.devices()) do
  if not device.unavailable then
    devices[#devices + 1] = device.id
    print(("# %s: %s (%s %s)"):format(device.id, device.name, device.driver_name, device.driver_version))
  else
    print(("# %s: skipped: %s"):format(device.id, device.unavailable))
  end
end
local _, version = torch({ widths = { 4, 10 }, batch = 4, rows = 8 }, 1, 1)
print("# peer: " .. (version or ("skipped: " .. python .. " has no PyTorch")) ..
  (", by the number of threads of 1 and %d that is faster; cpu has %d"):format(threads, threads))
print(("# %d interleaved rounds; median, least and most; ratio: PyTorch's time over the device's"):format(ROUNDS))
print(("%-16s %-12s %6s %10s %10s %10s %12s %9s"):format("model", "device", "batch", "us/step", "min", "max", "rows/s",
  "ratio"))

local folder = common.run "mktemp -d":match "%S+"
for i, case in ipairs(cases) do
  local data <close> = common.make_data(folder, case.rows, case.side)
  local widths, times, steps = table.concat(case.widths, "-"), {}, {}
  for _, device in ipairs(devices) do -- as many steps as fit into the given seconds
    times[device] = {}
    train(case, device, data, 20)
    steps[device] = math.max(10, math.floor(seconds * 1e6 / train(case, device, data, 20)))
  end
  local peer, peer_threads, peer_steps = {}, nil, nil
  if version then peer_threads, peer_steps = choose_peer(case) end
  for _ = 1, ROUNDS do
    for _, device in ipairs(devices) do
      table.insert(times[device], train(case, device, data, steps[device]))
    end
    if version then table.insert(peer, (torch(case, peer_steps, peer_threads))) end
  end
  if i > 1 then print() end
  if version then row(("PyTorch, %d"):format(peer_threads), widths, peer, case) end
  for _, device in ipairs(devices) do
    row(device, widths, times[device], case,
      version and ("%.2fx"):format(common.median(peer) / common.median(times[device])) or nil)
  end
end

-- What a teacher costs whose outputs are computed once: the student's steps beside the same steps without it.
print()
print("# distilled from 784-512-256-10, its outputs computed before; ratio: to the same steps without a teacher")
local teacher <close> = common.make_model { 784, 512, 256, 10 }
teacher:init(1)
for _, case in ipairs { cases[1], cases[2] } do
  local data <close> = common.make_data(folder, case.rows, case.side)
  for _, device in ipairs(devices) do
    local steps = math.max(10, math.floor(seconds * 1e6 / train(case, device, data, 200)))
    local plain, distilled = {}, {}
    for _ = 1, ROUNDS do
      table.insert(plain, train(case, device, data, steps))
      table.insert(distilled, train(case, device, data, steps, { teacher }))
    end
    row(device, table.concat(case.widths, "-"), distilled, case,
      ("%.2fx"):format(common.median(distilled) / common.median(plain)))
  end
end
os.execute("rm -r " .. folder)
