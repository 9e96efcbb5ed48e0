-- What a user waits for, process start to exit: a training end to end beside PyTorch, a tiny one, a sweep.
-- usage: lua5.4 whole.lua LAVAFLOW PYTHON THREADS DATA|-   (run.sh calls it)
local here = arg[0]:gsub("[^/]*$", "")
local common = dofile(here .. "common.lua")

local lavaflow, python, threads, mnist = arg[1], arg[2], arg[3], arg[4]
local ROUNDS, EPOCHS, MODELS = 3, 3, 16

local folder = common.run "mktemp -d":match "%S+"
local function write(name, text)
  local out = assert(io.open(folder .. "/" .. name, "w"))
  out:write(text)
  assert(out:close())
end
write("job.lua", [[
local lf = require "lavaflow"
local P = lf.params { data = "data.h5", epochs = 1, seed = 1 }
lf.step "train" {
  input = { data = P.data }, output = { model = "model.h5" }, params = P,
  run = function(s)
    local model = lf.mlp { 784, 128, 10, activation = "relu" }
    s:train { model = model, data = lf.dataset(s.input.data).train, loss = "cross_entropy",
              optimizer = lf.adam { lr = 1e-3 }, batch = 64, epochs = s.params.epochs, seed = s.params.seed }
    model:save(s.output.model)
  end,
}
]])

local function ours(more) -- from the start of the process to its end
  return function()
    return common.time(("cd %s && %s run job.lua -q --fresh --device cpu %s"):format(folder, lavaflow, more))
  end
end
local function theirs(file)
  return function()
    local peer = ("%s %speer_torch.py %s whole 784-128-10 64 %s %d %s/torch.pt 2>/dev/null"):format(python, here,
      threads, file, EPOCHS, folder)
    local ok, took = pcall(common.time, peer)
    return ok and took
  end
end

common.make_data(folder, 64, 28):close()
os.rename(folder .. "/data.h5", folder .. "/tiny.h5")
local name = "60,000 random rows"
if mnist == "-" then
  common.make_data(folder, 60000, 28):close()
  mnist = folder .. "/data.h5"
else
  name = "MNIST"
end
print(("# process start to exit, 784-128-10, batch 64, cpu; seconds, medians of %d interleaved rounds"):format(ROUNDS))
local file = " data=" .. mnist
local times = common.interleave(ROUNDS, { ours(file .. " epochs=" .. EPOCHS), theirs(mnist), ours " data=tiny.h5",
  ours(file), ours(file .. " --sweep seed=1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16") })
local function line(what, values, note)
  print(("%-58s %-26s %s"):format(what, #values > 0 and common.spread(values, "%.2f") or "skipped", note or ""))
end
local whole, torch, tiny, one, sweep = table.unpack(times)
line(("%s: file, %d epochs, saved model"):format(name, EPOCHS), whole)
line("the same in PyTorch", torch, #torch > 0 and ("%.1fx ours (goal 8x)"):format(common.median(torch) /
  common.median(whole)) or "")
line("a training of 64 rows", tiny, "(goal 0.5)")
line("one model, one epoch", one)
line(("a sweep of %d such models"):format(MODELS), sweep, ("%.1f times one (goal %d)"):format(common.median(sweep) /
  common.median(one), MODELS))
os.execute("rm -r " .. folder)
