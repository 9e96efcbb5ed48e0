-- MNIST with one hidden layer. The data: lavaflow import mnist FOLDER-OF-THE-FOUR-FILES -o datasets/mnist.h5
local lf = require "lavaflow"
local P = lf.params { data = "datasets/mnist.h5", hidden = 128, lr = 1e-3, batch = 64, epochs = 10, seed = 1 }

local train = lf.step "train" {
  input  = { data = P.data },
  output = { model = "results/mnist.h5" },
  params = P,
  run = function(s)
    local data  = lf.dataset(s.input.data)
    local model = lf.sequential { lf.linear(784, s.params.hidden), lf.relu(), lf.linear(s.params.hidden, 10) }
    s:train { model = model, data = data.train, validation = data.test, loss = "cross_entropy",
              optimizer = lf.adam { lr = s.params.lr }, batch = s.params.batch, epochs = s.params.epochs,
              seed = s.params.seed }
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
