-- Regression on synthetic data, Friedman's first function of ten numbers, five of which say nothing:
-- y = 10 sin(π x1 x2) + 20 (x3 - 1/2)² + 10 x4 + 5 x5 + noise of deviation 1. No model can explain more than R² = 0.96.
local lf = require "lavaflow"

local P = lf.params {
  data = "datasets/friedman.h5", hidden = 64, lr = 1e-2, weight_decay = 1e-2, batch = 64, epochs = 200, patience = 30,
  seed = 1,
}

local function open(path) return lf.dataset { file = path, normalize = "standard" } end

local train = lf.step "train" {
  input = { data = P.data },
  output = { model = "results/friedman.h5" },
  params = P,
  run = function(s)
    local data, p = open(s.input.data), s.params
    local model = lf.mlp { data.train.features, p.hidden, p.hidden, 1, activation = "silu" }
    s:train {
      model = model, data = data.train, validation = data.valid, loss = "mse",
      optimizer = lf.adamw { lr = p.lr, weight_decay = p.weight_decay, schedule = { "cosine", warmup = 50 } },
      batch = p.batch, epochs = p.epochs, seed = p.seed,
      patience = p.patience, -- and the weights of the best epoch
    }
    model:save(s.output.model)
  end,
}

lf.step "test" {
  input = { data = P.data, model = train.output.model },
  output = { predictions = "results/friedman_predictions.h5" }, -- /prediction (rows, 1)
  run = function(s)
    local test, model = open(s.input.data).test, lf.load(s.input.model)
    local scores = s:evaluate { model = model, data = test, loss = "mse" }
    s:metric("r2", scores.r2)
    s:metric("rmse", scores.rmse)
    s:predict { model = model, data = test, as = "values", output = s.output.predictions }
  end,
}
