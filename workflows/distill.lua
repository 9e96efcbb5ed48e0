-- Knowledge distillation on MNIST: a large, regularised teacher 784-512-256-10; a student 784-128-10 that learns from
-- it; and the same student alone. `lavaflow import mnist FOLDER -o datasets/mnist.h5` makes the data; any other with
-- classes will do. The run file keeps the scores of the three on the test images: evaluations/compare.teacher, .alone
-- and .distilled, with confusion, precision and recall by class.
-- The recipe matters: a teacher without dropout, trained for a few epochs, knows little that the labels do not say.
local lf = require "lavaflow"

local P = lf.params {
  data = "datasets/mnist.h5", epochs = 20, lr = 1e-3, seed = 1, teacher_batch = 128, student_batch = 64,
  wide = 512, narrow = 256, hidden = 128, temperature = 4.0, alpha = 0.9,
}

local function adam(params) return lf.adam { lr = params.lr, schedule = "cosine" } end

local function student(data, params)
  return lf.mlp { data.train.features, params.hidden, data.train.classes, activation = "relu" }
end

local teacher = lf.step "teacher" {
  input = { data = P.data },
  output = { model = "results/teacher.h5" },
  params = P,
  run = function(s)
    local data, wide, narrow = lf.dataset(s.input.data), s.params.wide, s.params.narrow
    local model = lf.sequential {
      lf.dropout(0.2), lf.linear(data.train.features, wide), lf.relu(), lf.dropout(0.5),
      lf.linear(wide, narrow), lf.relu(), lf.dropout(0.3), lf.linear(narrow, data.train.classes),
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
    local data = lf.dataset(s.input.data)
    local model = student(data, s.params)
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
    local data = lf.dataset(s.input.data)
    local model = student(data, s.params)
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
      local scores = s:evaluate { name = name, model = lf.load(s.input[name]), data = test }
      s:metric(name .. "_accuracy", scores.accuracy)
    end
  end,
}
