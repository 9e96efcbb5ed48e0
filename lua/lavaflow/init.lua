-- lavaflow: trains MLPs from HDF5 on a GPU through Vulkan, or on the CPU. `require "lavaflow"`.
--
-- Misuse raises an error that names the argument, the expectation and what was given; so does a file or a device that
-- fails. Rows are examples; every array is row-major.
local core = require "lavaflow.core"
local layers = require "lavaflow.layers"
local optimizers = require "lavaflow.optimizers"
local steps = require "lavaflow.steps"
local training = require "lavaflow.training"

--- @class lavaflow
local lf = { version = core.version }

for _, source in ipairs { layers, optimizers } do
  for name, value in pairs(source) do
    if type(value) == "function" then lf[name] = value end
  end
end

lf.dataset = training.dataset
lf.params = steps.params
lf.step = steps.step

--- @class lavaflow.history
--- @field loss number[] mean over the epoch's rows, while the weights changed; one value an epoch, as the next four
--- @field accuracy number[]? 0..1; none with mse
--- @field val_loss number[]? with the weights at the epoch's end; none without validation
--- @field val_accuracy number[]?
--- @field lr number[] at the epoch's last step
--- @field final { loss: number, accuracy: number?, val_loss: number?, val_accuracy: number?, lr: number }
--- @field epochs integer done
--- @field steps integer done
--- @field seconds number of the training loop
--- @field submissions integer to the device
--- @field device string "vulkan:0", "cpu"
--- @field device_info table as an entry of lf.devices()
--- @field digest string sha256 of the final weights
--- @field stopped "on_epoch"|"max_steps"|nil

--- Trains `model` on a part of a data set; the model holds the new weights afterwards. One script gives equal bits on
--- every run on one device.
---
--- model, data: required. validation: a part, evaluated after every epoch. loss: "cross_entropy" (logits; class numbers
--- from 0) or "mse". optimizer: lf.adam {} unless given. batch 64, epochs 10, seed 0, shuffle true. max_steps: ends
--- sooner. device: "auto" (the first discrete GPU, else any GPU, else the CPU), "cpu", "vulkan:0", part of a name
--- ("vulkan:NAME"), a UUID. window: MiB for resident rows; larger data is streamed. on_epoch(epoch, logs): false stops.
--- checkpoint: file written after every epoch and when stopped; resume: such a file to go on from; the same path as
--- checkpoint may not exist yet. digest_every: steps. record: a run file of this training. progress: true prints how
--- it goes.
--- @param given table
--- @return lavaflow.history
function lf.train(given) return training.train("lf.train", given, {}) end

--- Knowledge distillation: trains `student` with loss alpha·T²·KL(teacher_T ‖ student_T) + (1 - alpha)·cross-entropy,
--- where _T is the softmax of the logits over the temperature T. The teachers are run over the rows once, before the
--- training; several count by the mean of their softened outputs. A teacher that was trained without regularisation
--- for few epochs has little to teach.
---
--- student, data; teacher, a model, or teachers, an array of them. temperature 4, alpha 0.7. The others as lf.train.
--- @param given table
--- @return lavaflow.history
function lf.distill(given) return training.distill("lf.distill", given, {}) end

--- Loss and accuracy of a model on a part: model, data, loss ("cross_entropy"), batch (256), device, window.
--- @param given table
--- @return { loss: number, accuracy: number?, rows: integer, seconds: number, device: string }
function lf.evaluate(given) return training.evaluate("lf.evaluate", given, {}) end

--- The model's outputs (logits), (rows, outputs): model, and data, a part, or x, an array of rows; batch, device,
--- window.
--- @param given table
--- @return number[][]
function lf.predict(given) return training.predict("lf.predict", given, {}) end

--- Every device of every backend; `unavailable` says why one cannot be used.
--- @return { id: string, backend: string, name: string, uuid: string?, driver_name: string?, driver_version: string?,
---   api_version: string?, kernels: string?, hardware_gpu: boolean, units: integer, memory: integer,
---   max_tensor: integer, unavailable: string? }[]
function lf.devices() return core.devices() end

return lf
