-- Knowledge distillation on MNIST: a large, regularised teacher 784-512-256-10; a student 784-128-10 that learns from
-- it; and the same student alone. `lavaflow import mnist FOLDER -o datasets/mnist.h5` makes the data.
-- The recipe matters: a teacher without dropout, trained for a few epochs, knows little that the labels do not say.
local lf = require "lavaflow"

local P = lf.params {
  data = "datasets/mnist.h5", epochs = 20, lr = 1e-3, seed = 1, teacher_batch = 128, student_batch = 64,
  temperature = 4.0, alpha = 0.9,
}

local function adam(params) return lf.adam { lr = params.lr, schedule = "cosine" } end

local function student() return lf.mlp { 784, 128, 10, activation = "relu" } end

local teacher = lf.step "teacher" {
  input = { data = P.data },
  output = { model = "results/teacher.h5" },
  params = P,
  run = function(s)
    local data = lf.dataset(s.input.data)
    local model = lf.sequential {
      lf.dropout(0.2), lf.linear(784, 512), lf.relu(), lf.dropout(0.5),
      lf.linear(512, 256), lf.relu(), lf.dropout(0.3), lf.linear(256, 10),
    }
    s:train {
      model = model, data = data.train, validation = data.test, optimizer = adam(s.params),
      batch = s.params.teacher_batch, epochs = s.params.epochs, seed = s.params.seed,
    }
    model:save(s.output.model)
  end,
}

local distilled = lf.step "distilled" {
  input = { data = P.data, teacher = teacher.output.model },
  output = { model = "results/distilled.h5" },
  params = P,
  run = function(s)
    local data, model = lf.dataset(s.input.data), student()
    s:distill {
      teacher = lf.load(s.input.teacher), student = model, data = data.train, validation = data.test,
      temperature = s.params.temperature, alpha = s.params.alpha, optimizer = adam(s.params),
      batch = s.params.student_batch, epochs = s.params.epochs, seed = s.params.seed,
    }
    model:save(s.output.model)
  end,
}

local alone = lf.step "alone" {
  input = { data = P.data },
  output = { model = "results/alone.h5" },
  params = P,
  run = function(s)
    local data, model = lf.dataset(s.input.data), student()
    s:train {
      model = model, data = data.train, validation = data.test, optimizer = adam(s.params),
      batch = s.params.student_batch, epochs = s.params.epochs, seed = s.params.seed,
    }
    model:save(s.output.model)
  end,
}

lf.step "compare" {
  input = { data = P.data, teacher = teacher.output.model, distilled = distilled.output.model,
    alone = alone.output.model },
  run = function(s)
    local test = lf.dataset(s.input.data).test
    for _, name in ipairs { "teacher", "alone", "distilled" } do
      s:metric(name .. "_accuracy", s:evaluate { model = lf.load(s.input[name]), data = test }.accuracy)
    end
  end,
}
