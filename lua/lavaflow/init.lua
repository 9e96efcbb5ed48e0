-- lavaflow: trains MLPs from HDF5 on a GPU through Vulkan, or on the CPU. `require "lavaflow"`. The reference is
-- lua/REFERENCE.md.
--
-- Misuse raises an error that names the argument, the expectation and what was given; so does a file or a device that
-- fails. Rows are examples; every array is row-major.
local core = require "lavaflow.core"
local data = require "lavaflow.data"
local distillation = require "lavaflow.distillation"
local evaluation = require "lavaflow.evaluation"
local layers = require "lavaflow.layers"
local optimizers = require "lavaflow.optimizers"
local prediction = require "lavaflow.prediction"
local steps = require "lavaflow.steps"
local training = require "lavaflow.training"

--- @class lavaflow: lavaflow.layers, lavaflow.optimizers
--- @field version string
local lf = { version = core.version }

for _, source in ipairs { layers, optimizers } do
  for name, value in pairs(source) do
    if type(value) == "function" then lf[name] = value end
  end
end

--- data.dataset, in the run of a step.
function lf.dataset(given)
  steps.only_in_run "lf.dataset"
  return data.dataset(given)
end
local load = layers.load

--- layers.load, in the run of a step.
function lf.load(path)
  steps.only_in_run "lf.load"
  return load(path)
end

lf.params = steps.params
lf.step = steps.step

--- @class lavaflow.history
--- @field loss number[] mean over the epoch's rows, while the weights changed; one value an epoch, as the next four
--- @field accuracy? number[] 0 to 1, with cross_entropy and binary_cross_entropy
--- @field val_loss? number[] at the epoch's end; none without validation
--- @field val_accuracy? number[]
--- @field lr number[] at the epoch's last step
--- @field final lavaflow.epoch_logs the last epoch's
--- @field best_epoch? integer from 1, when a value is monitored
--- @field best_value? number of what is monitored, in that epoch
--- @field epochs integer done
--- @field steps integer done: batches
--- @field seconds number of the training loop
--- @field submissions integer to the devices
--- @field dispatches integer of the devices' programs
--- @field device string "vulkan:0", "cpu": the first one
--- @field device_info lavaflow.device the first one's
--- @field devices lavaflow.training_device[] all of them, as they were asked for
--- @field shards integer of a batch; 1: it was not divided
--- @field ranks integer processes
--- @field exchange_seconds number of the loop: gradients on their way, while no device computed
--- @field digest string sha256 of the final weights
--- @field stopped? "on_epoch"|"on_step"|"max_steps"|"patience" why it ended before the last epoch's end

--- @class lavaflow.training_device: lavaflow.device
--- @field opened integer how many before it are the same device
--- @field shards integer that it worked on at the end; 0: there are none
--- @field busy number seconds that it computed, where there are several
--- @field lost boolean the others went on without it

--- Trains `model` on a part of a data set; the model holds the new weights afterwards. One script gives equal bits on
--- every run on one device, and with one number of `shards` on any number of devices of one kind.
--- @param given lavaflow.train_options
--- @return lavaflow.history
function lf.train(given)
  steps.only_in_run "lf.train"
  return training.train("lf.train", given, {})
end

--- Knowledge distillation: trains `student`. With cross_entropy the loss is alpha·T²·KL(teacher_T ‖ student_T) +
--- (1 - alpha)·cross-entropy, where _T is the softmax of the logits over the temperature T; with the other losses it is
--- (1 - alpha)·loss + alpha·mean square distance of the outputs to the teachers'. A teacher that was trained without
--- regularisation for few epochs has little to teach.
--- @param given lavaflow.distill_options
--- @return lavaflow.history
function lf.distill(given)
  steps.only_in_run "lf.distill"
  return distillation.distill("lf.distill", given, {})
end

--- Loss and scores of a model on a part.
--- @param given lavaflow.evaluate_options
--- @return lavaflow.scores
function lf.evaluate(given)
  steps.only_in_run "lf.evaluate"
  return evaluation.evaluate("lf.evaluate", given, {})
end

--- The model's outputs, (rows, outputs), for a part or for rows; (rows) class numbers with as = "classes"; with
--- `output` what the file holds.
--- @param given lavaflow.predict_options
--- @return number[][]|integer[]|{ rows: integer, outputs: integer, path: string }
function lf.predict(given)
  steps.only_in_run "lf.predict"
  return prediction.predict("lf.predict", given, {})
end

--- @class lavaflow.device
--- @field id string "vulkan:0", "cpu"
--- @field backend string
--- @field name string
--- @field uuid? string
--- @field driver_name? string
--- @field driver_version? string
--- @field api_version? string
--- @field kernels? string sha256 of its kernels
--- @field hardware_gpu boolean
--- @field units integer threads of the CPU
--- @field memory integer bytes; 0: not known
--- @field max_tensor integer bytes
--- @field unavailable? string why it cannot be used

--- Every device of every backend.
--- @return lavaflow.device[]
function lf.devices() return core.devices() end

return lf
