-- From a file to the device: MNIST-size files until the first step is done, beside reading their bytes; and a file
-- larger than the memory it may take, beside the same training on resident rows.
-- usage: lua5.4 input.lua PYTHON SECONDS GIGABYTES   (run.sh calls it)
--        lua5.4 input.lua train FILE WINDOW STEPS   (it calls itself, for a peak of memory of its own)
local core = require "lavaflow.core"
local here = arg[0]:gsub("[^/]*$", "")
local common = dofile(here .. "common.lua")
local ROUNDS, CASE = 5, { widths = { 784, 128, 10 }, batch = 64 }

local function first_step(file)
  local start = common.now()
  local data <close> = core.dataset { file = file }
  CASE.rows = data.train.rows
  common.train(CASE, { "cpu" }, data, 1)
  return 1e3 * (common.now() - start)
end

if arg[1] == "train" then
  local data <close> = core.dataset { file = arg[2] }
  CASE.rows = data.train.rows
  local took = common.train(CASE, { "cpu" }, data, tonumber(arg[4]), { window = tonumber(arg[3]) })
  for line in io.lines "/proc/self/status" do
    local peak = line:match "^VmHWM:%s*(%d+)"
    if peak then print(took, tonumber(peak) / 1024) end
  end
  return
end

local python, seconds, gigabytes = arg[1], tonumber(arg[2]), tonumber(arg[3])
local folder = common.run "mktemp -d":match "%S+"
common.make_data(folder, 64, 28):close()
os.rename(folder .. "/data.h5", folder .. "/tiny.h5")
common.make_data(folder, 60000, 28):close()
-- The same rows made coarser, so that they deflate, in other layouts.
local layouts = common.run(([[%s -c '
import h5py, time, zlib, numpy as np
with h5py.File("%s/data.h5") as data:
    x, y = data["train/x"][:].reshape(60000, 784), data["train/y"][:]
x = np.where(x < 200, 0, x & 0xf0)
for name, how in (("contiguous", {}), ("chunked", {"chunks": (512, 784)}),
                  ("gzip", {"chunks": (512, 784), "compression": "gzip"})):
    with h5py.File("%s/" + name + ".h5", "w") as out:
        out.create_dataset("train/x", data=x, **how)
        out.create_dataset("train/y", data=y)
took = []
for i in range(5):
    start = time.perf_counter()
    np.fromfile("%s/contiguous.h5", np.uint8)
    took.append(1e3 * (time.perf_counter() - start))
with h5py.File("%s/gzip.h5") as data:
    x = data["train/x"].id
    parts = [x.read_direct_chunk(x.get_chunk_info(i).chunk_offset)[1] for i in range(x.get_num_chunks())]
start = time.perf_counter()
for part in parts:
    zlib.decompress(part)
print(sorted(took)[2], 1e3 * (time.perf_counter() - start))
' 2>/dev/null]]):format(python, folder, folder, folder, folder))
print(("# 60,000 x 784 bytes from a file to `cpu` until the first step is done, in the page cache; milliseconds, " ..
  "medians of %d"):format(ROUNDS))
if layouts then
  local bytes, inflate = layouts:match "(%S+) (%S+)"
  print(("%-58s %.1f"):format("reading the bytes into fresh memory", bytes))
  print(("%-58s %.1f"):format("inflating the gzipped ones, one thread of zlib", inflate))
  local names = { "tiny", "contiguous", "chunked", "gzip" }
  local runs = {}
  for i, name in ipairs(names) do runs[i] = function() return first_step(folder .. "/" .. name .. ".h5") end end
  for i, values in ipairs(common.interleave(ROUNDS, runs)) do
    print(("%-58s %s"):format(names[i] == "tiny" and "64 rows" or names[i], common.spread(values, "%.1f")))
  end
else
  print("skipped: " .. python .. " has no h5py")
end

local rows = math.floor(gigabytes * 1e9 / 784)
common.make_data(folder, rows, 28):close()
os.execute(("rm %s/*-ubyte"):format(folder))
local function train(window, steps)
  local text = common.run(("lua5.4 %s train %s/data.h5 %d %d"):format(arg[0], folder, window, steps))
  return tonumber(text:match "^%S+"), tonumber(text:match "%s(%S+)")
end
local RESIDENT, WINDOW = 1 << 20, 512
local unit = 2 * (WINDOW * 2 ^ 20 // 2 // (784 + 4) // 64) -- steps of what is read at a time: none is read in vain
local steps = math.ceil(2 * seconds * 1e6 / train(WINDOW, 2000) / unit) * unit // 1 | 0
local memory = {}
local times = common.interleave(ROUNDS, {
  function() local took, peak = train(RESIDENT, steps) memory[1] = peak return took end,
  function() local took, peak = train(WINDOW, steps) memory[2] = peak return took end,
})
print(("# a file of %.1f GB, shuffled whole, 784-128-10, batch 64, cpu; microseconds a step"):format(gigabytes))
print(("%-58s %s, peak of memory %.0f MiB"):format("resident", common.spread(times[1], "%.0f"), memory[1]))
print(("%-58s %s, peak of memory %.0f MiB, %.0f %% of the speed (goal 90)"):format(("window = %d MiB"):format(WINDOW),
  common.spread(times[2], "%.0f"), memory[2], 100 * common.median(times[1]) / common.median(times[2])))
os.execute("rm -r " .. folder)
