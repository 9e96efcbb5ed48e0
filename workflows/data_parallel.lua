-- One training on several devices: each works on its shards of every batch, and gradients are added up in one order, so
-- that any number of devices of one kind gives the same model, to the bit. A small model is faster on one device; a
-- wide one with large batches is not.
--   lavaflow run workflows/data_parallel.lua                                     every GPU, without one the cpu
--   lavaflow run workflows/data_parallel.lua wide=true batch=8192 -v             where it pays
--   lavaflow run workflows/data_parallel.lua --device vulkan:0,vulkan:1,cpu      these, which may be of any kind
--   mpirun -n 4 lavaflow run workflows/data_parallel.lua                         those of four processes
local lf = require "lavaflow"
local P = lf.params { data = "datasets/mnist.h5", devices = "all", shards = 8, wide = false, lr = 1e-3, batch = 256,
                      epochs = 5, seed = 1 }

-- "vulkan:0,cpu" as a list; "all" as it is.
local function list(text)
  local devices = {}
  for device in text:gmatch "[^,]+" do devices[#devices + 1] = device end
  return text == "all" and text or devices
end

local train = lf.step "train" {
  input     = { data = P.data },
  output    = { model = "results/data_parallel.h5" },
  params    = P,
  resources = { devices = "all" },
  run = function(s)
    local data, p = lf.dataset(s.input.data), s.params
    local inputs  = data.train.features
    local model   = lf.mlp(p.wide and { inputs, 4096, 4096, 4096, 10 } or { inputs, 128, 10 })
    local history = s:train { model = model, data = data.train, validation = data.test,
                              optimizer = lf.adam { lr = p.lr }, batch = p.batch, epochs = p.epochs, seed = p.seed,
                              devices = list(p.devices), shards = p.shards }
    print(("%.0f rows/s, devices: %d"):format(history.epochs * data.train.rows / history.seconds, #history.devices))
    model:save(s.output.model)
  end,
}

lf.step "evaluate" {
  input = { data = P.data, model = train.output.model },
  run = function(s)
    local scores = s:evaluate { model = lf.load(s.input.model), data = lf.dataset(s.input.data).test }
    s:metric("test_accuracy", scores.accuracy)
  end,
}
