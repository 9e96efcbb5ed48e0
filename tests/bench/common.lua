-- What the benchmarks share: data, models, a timed training.
local uv = require "luv"
local core = require "lavaflow.core"

local common = {}

--- What a command prints; nil if it fails.
function common.run(command)
  local pipe = assert(io.popen(command))
  local text = pipe:read "a"
  return pipe:close() and text or nil
end

--- Seconds by the clock on the wall.
function common.now() return uv.hrtime() * 1e-9 end

--- Seconds that a command takes, from the start of its process to the end; it must succeed.
function common.time(command)
  local start = common.now()
  assert(os.execute(command .. " >/dev/null"), command)
  return common.now() - start
end

-- Random images of side x (other or side) in MNIST's own format, which `import` turns into a data set file.
function common.make_data(folder, rows, side, other)
  other = other or side
  local function write(name, magic, dims, count, limit)
    local out = assert(io.open(folder .. "/" .. name, "wb"))
    out:write(string.pack(">I4", magic))
    for _, dim in ipairs(dims) do out:write(string.pack(">I4", dim)) end
    local block = {}
    for i = 1, 65536 do block[i] = string.char(math.random(0, limit)) end
    block = table.concat(block)
    while count > 0 do
      out:write(block:sub(1, count))
      count = count - #block
    end
    assert(out:close())
  end
  for part, n in pairs { train = rows, t10k = 1000 } do
    write(part .. "-images-idx3-ubyte", 0x803, { n, side, other }, n * side * other, 255)
    write(part .. "-labels-idx1-ubyte", 0x801, { n }, n, 9)
  end
  core.import_mnist(folder, folder .. "/data.h5")
  return core.dataset { file = folder .. "/data.h5" }
end

function common.make_model(widths)
  local layers = {}
  for i = 2, #widths do
    layers[#layers + 1] = { kind = "linear", inputs = widths[i - 1], outputs = widths[i] }
    if i < #widths then layers[#layers + 1] = { kind = "relu" } end
  end
  return core.model(layers)
end

-- Microseconds a step, and what the training says of itself. `devices`: a list; `options`: more of core.train's.
function common.train(case, devices, data, steps, options)
  local model <close> = common.make_model(case.widths)
  local given = {
    accumulate = 1, model = model, data = data.train, loss = "cross_entropy", optimizer = { kind = "adam", lr = 1e-3 },
    batch = case.batch, epochs = math.ceil(steps * case.batch / case.rows) + 1, max_steps = steps, seed = 1,
    shuffle = true, devices = devices, balance = "speed", name = "train",
  }
  for name, value in pairs(options or {}) do given[name] = value end
  local history = core.train(given)
  return history.seconds / history.steps * 1e6, history
end

--- Sorts them.
function common.median(values)
  table.sort(values)
  return values[(#values + 1) // 2]
end

--- "median (least to most)" of values that `common.median` has sorted or will.
function common.spread(values, format)
  return (format .. " (" .. format .. " to " .. format .. ")"):format(common.median(values), values[1],
    values[#values])
end

--- Calls functions in turn, `rounds` times; a list of values for each, empty where one gave nil.
function common.interleave(rounds, functions)
  local values = {}
  for i = 1, #functions do values[i] = {} end
  for _ = 1, rounds do
    for i, one in ipairs(functions) do
      values[i][#values[i] + 1] = one() or nil
    end
  end
  return values
end

return common
