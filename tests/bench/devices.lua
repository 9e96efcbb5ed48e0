-- What several devices cost and gain: microseconds a step of one device and of several, each with as many threads.
-- usage: lua5.4 devices.lua SECONDS DEVICES   (devices.sh sets the paths and LAVAFLOW_THREADS, and calls it)
local common = dofile((arg[0]:gsub("[^/]*$", "common.lua")))

local core = require "lavaflow.core"
local ROUNDS = 3

local cases = {
  { widths = { 784, 128, 10 }, batch = 64, rows = 20000, side = 28 },
  { widths = { 784, 1024, 1024, 10 }, batch = 1024, rows = 20000, side = 28 },
  { widths = { 1024, 2048, 2048, 2048, 10 }, batch = 2048, rows = 20000, side = 32 },
}

-- One device with one thread needs a process of its own, for threads are counted once: devices.lua CASE STEPS FILE.
if arg[3] then
  local data <close> = core.dataset { file = arg[3] }
  print((common.train(cases[tonumber(arg[1])], { "cpu" }, data, tonumber(arg[2]), { shards = 8 })))
  return
end
local seconds, many = tonumber(arg[1]), tonumber(arg[2])

-- As many steps as fit into the given seconds, and at least a few.
local function steps_for(case, data, devices)
  return math.max(4, math.floor(seconds * 1e6 / common.train(case, devices, data, 4, { shards = 8 })))
end

print(("%-22s %6s %9s %12s %12s %11s %9s %9s"):format("model", "batch", "gradient", "one, us/step", "all, us/step",
  "efficiency", "busy", "exchange"))
local folder = common.run "mktemp -d":match "%S+"
local all = {}
for i = 1, many do all[i] = "cpu" end
for i, case in ipairs(cases) do
  local data <close> = common.make_data(folder, case.rows, case.side)
  local one, together, busy, exchange = {}, {}, {}, {}
  local steps = steps_for(case, data, all)
  for _ = 1, ROUNDS do
    one[#one + 1] = tonumber(common.run(("LAVAFLOW_THREADS=1 lua5.4 %s %d %d %s/data.h5"):format(arg[0], i, steps,
      folder)))
    local time, history = common.train(case, all, data, steps, { shards = 8 })
    together[#together + 1] = time
    local computed = 0
    for _, device in ipairs(history.devices) do computed = computed + device.busy / history.seconds / many end
    busy[#busy + 1], exchange[#exchange + 1] = computed, history.exchange_seconds / history.seconds
  end
  local parameters = 0
  for j = 2, #case.widths do parameters = parameters + (case.widths[j - 1] + 1) * case.widths[j] end
  local a, b = common.median(one), common.median(together)
  print(("%-22s %6d %6.1f MB %12.0f %12.0f %9.0f %% %7.0f %% %7.0f %%"):format(table.concat(case.widths, "-"),
    case.batch, parameters * 4e-6, a, b, 100 * a / (many * b), 100 * common.median(busy),
    100 * common.median(exchange)))
end
os.execute("rm -r " .. folder)
