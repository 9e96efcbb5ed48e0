-- The 8x8 digits that come with the project: a first run that needs nothing else and takes seconds.
local lf = require "lavaflow"
local P = lf.params { data = "datasets/digits.h5", hidden = 64, lr = 5e-3, batch = 16, epochs = 20, seed = 1 }

local train = lf.step "train" {
  input  = { data = P.data },
  output = { model = "results/digits.h5" },
  params = P,
  run = function(s)
    local data  = lf.dataset(s.input.data)
    local model = lf.mlp { 64, s.params.hidden, 10, activation = "relu" }
    s:train { model = model, data = data.train, validation = data.valid, optimizer = lf.adam { lr = s.params.lr },
              batch = s.params.batch, epochs = s.params.epochs, seed = s.params.seed }
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
