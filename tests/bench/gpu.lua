-- Microseconds a step on GPUs, through CUDA and Vulkan, beside PyTorch (eager, torch.compile, CUDA graphs) and JAX on
-- the same card, in one run.
-- usage: lua5.4 gpu.lua PYTHON [DEVICE…]   (gpu.sh sets the paths and calls it; the devices are cuda:0 and vulkan:0)
local common = dofile((arg[0]:gsub("[^/]*$", "common.lua")))

local python = arg[1]
local devices = #arg > 1 and table.move(arg, 2, #arg, 1, {}) or { "cuda:0", "vulkan:0" }
local ROUNDS = 3

-- 10 epochs of 60,000 rows; and layers so wide that products are all that counts.
local cases = {
  { widths = { 784, 128, 10 }, batch = 64, rows = 60000, side = 28, steps = 9380, precisions = { "f32" } },
  { widths = { 4096, 4096, 4096, 4096 }, batch = 8192, rows = 32768, side = 64, steps = 30,
    precisions = { "f32", "tf32" } },
}

local function peer(mode, case, precision)
  local text = common.run(("%s %s/peer_gpu.py %s %s %d %d %d %s 2>/dev/null"):format(python,
    arg[0]:match "^(.*)/[^/]*$", mode, table.concat(case.widths, "-"), case.batch, case.rows, case.steps, precision))
  return text and tonumber(text:match "^[%d.]+"), text and text:match "%s(.+)\n"
end

local function device(name)
  return function(case, precision, data)
    local ok, time = pcall(common.train, case, { name }, data, case.steps, { precision = precision })
    if not ok then return nil, time end
    return time, name
  end
end

local contenders = {}
for _, mode in ipairs { "eager", "compile", "graphs", "jax" } do
  contenders[#contenders + 1] = { mode, function(case, precision) return peer(mode, case, precision) end }
end
for _, name in ipairs(devices) do contenders[#contenders + 1] = { name, device(name) } end

print(("%-22s %6s %5s %-10s %12s %12s %12s %9s"):format("model", "batch", "", "", "us/step", "min", "max", "to eager"))
local folder = common.run "mktemp -d":match "%S+"
for _, case in ipairs(cases) do
  local data <close> = common.make_data(folder, case.rows, case.side)
  for _, precision in ipairs(case.precisions) do
    local times, notes, eager = {}, {}, nil
    for _ = 1, ROUNDS do
      for i, contender in ipairs(contenders) do
        local time, note = contender[2](case, precision, data)
        times[i], notes[i] = times[i] or {}, note
        if time then table.insert(times[i], time) end
      end
    end
    for i, contender in ipairs(contenders) do
      local middle = #times[i] > 0 and common.median(times[i])
      if i == 1 then eager = middle end
      if middle then
        print(("%-22s %6d %5s %-10s %12.2f %12.2f %12.2f %9s  %s"):format(table.concat(case.widths, "-"), case.batch,
          precision, contender[1], middle, times[i][1], times[i][#times[i]],
          eager and ("%.1fx"):format(eager / middle) or "", notes[i] or ""))
      else
        print(("%-22s %6d %5s %-10s skipped: %s"):format(table.concat(case.widths, "-"), case.batch, precision,
          contender[1], notes[i] or (python .. " does not have it, or failed")))
      end
    end
  end
end
os.execute("rm -r " .. folder)
