-- That what is timed is the same computation: from equal weights, on rows in equal order, `cpu` gives PyTorch's first
-- 100 losses, and after some epochs its accuracy. Fails when it does not.
-- usage: lua5.4 agree.lua PYTHON THREADS [DATA]   (run.sh calls it)
local core = require "lavaflow.core"
local here = arg[0]:gsub("[^/]*$", "")
local common = dofile(here .. "common.lua")

local python, threads, mnist = arg[1], arg[2], arg[3]
local STEPS, EPOCHS, LOSS_BOUND, ACCURACY_BOUND = 100, 3, 1e-4, 0.005

local folder = common.run "mktemp -d":match "%S+"
local agreed = true

local function compare(name, file, widths, batch)
  local model <close> = common.make_model(widths)
  model:init(1)
  model:save(folder .. "/model.h5")
  local text = common.run(("%s %speer_torch.py %s losses %s/model.h5 %d %s %d %d 2>/dev/null"):format(python, here,
    threads, folder, batch, file, STEPS, EPOCHS))
  if not text then return print("# agreement: skipped: " .. python .. " has no PyTorch or no h5py") end
  local theirs, ours, data <close> = {}, {}, core.dataset { file = file }
  for number in text:gmatch "%S+" do theirs[#theirs + 1] = tonumber(number) end
  local accuracy = table.remove(theirs)
  local history = core.train { accumulate = 1, model = model, data = data.train, validation = data.test,
    loss = "cross_entropy", optimizer = { kind = "adam", lr = 1e-3 }, batch = batch, epochs = EPOCHS, seed = 1,
    shuffle = false, devices = { "cpu" }, balance = "speed", name = "train", on_step_every = 1,
    on_step = function(step, logs) if step <= STEPS then ours[step] = logs.loss end end }
  local worst = 0
  for i, loss in ipairs(theirs) do worst = math.max(worst, math.abs(loss - ours[i]) / loss) end
  local mine = history.val_accuracy[#history.val_accuracy]
  local good = #ours == #theirs and worst <= LOSS_BOUND and math.abs(mine - accuracy) <= ACCURACY_BOUND
  print(("# agreement, %s %s, batch %d: the first %d losses within %.1e of PyTorch's; after %d epochs accuracy %.4f, "
    .. "PyTorch %.4f%s"):format(name, table.concat(widths, "-"), batch, #ours, worst, EPOCHS, mine, accuracy,
    good and "" or ": THEY DISAGREE"))
  agreed = agreed and good
end

common.make_data(folder, 6400, 28):close()
for _, job in ipairs { { { 784, 128, 10 }, 64 }, { { 784, 512, 256, 10 }, 128 } } do
  compare(mnist and "MNIST" or "random", mnist or folder .. "/data.h5", job[1], job[2])
end
os.execute("rm -r " .. folder)
os.exit(agreed and 0 or 1)
