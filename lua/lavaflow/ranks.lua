-- The processes that mpirun or srun has started together, as each of them sees it: which of its machine's devices are
-- its own, and what all of them take from the first.
local core = require "lavaflow.core"
local files = require "lavaflow.files"
local rules = require "lavaflow.rules"

local ranks = {}

-- Entry `at`, from 0, of Slurm's "2(x3),1", which is 2,2,2,1.
local function tasks_of_node(text, at)
  for count, rest in (text or ""):gmatch "(%d+)([^,]*)" do
    at = at - (tonumber(rest:match "x(%d+)") or 1)
    if at < 0 then return tonumber(count) end
  end
end

-- Which of its machine's processes this is, from 0, and how many they are; 0, 1 where the launcher does not tell.
local function place_on_machine()
  local function number(name) return math.tointeger(tonumber(os.getenv(name))) end
  local rank = number "OMPI_COMM_WORLD_LOCAL_RANK" or number "MPI_LOCALRANKID" or number "SLURM_LOCALID"
  local tasks = os.getenv "SLURM_STEP_TASKS_PER_NODE" or os.getenv "SLURM_TASKS_PER_NODE"
  local count = number "OMPI_COMM_WORLD_LOCAL_SIZE" or number "MPI_LOCALNRANKS"
    or tasks_of_node(tasks, number "SLURM_NODEID" or 0)
  if not rank or not count then return 0, 1 end
  return rank, count
end

--- The GPUs of process `rank` of `count` on one machine: every `count`-th. nil where there are fewer than processes,
--- which then share all.
--- @param devices lavaflow.device[]
--- @param rank integer from 0
--- @param count integer
--- @return string[]?
function ranks.share(devices, rank, count)
  local gpus, seen, own = {}, {}, {}
  for _, device in ipairs(devices) do
    local card = device.uuid or device.id -- which is there through Vulkan and through CUDA
    if device.hardware_gpu and not device.unavailable and not seen[card] then
      seen[card] = true
      gpus[#gpus + 1] = device.id
    end
  end
  if #gpus < count then return nil end
  for i = rank + 1, #gpus, count do own[#own + 1] = gpus[i] end
  return own
end

-- nil: no device is more its own than another's.
local function own_devices()
  local rank, count = place_on_machine()
  return count > 1 and core.ranks_started() and ranks.share(core.devices(), rank, count) or nil
end

--- A training's devices, where "all" and "auto" stand for those of this process.
--- @param specs string[]
--- @return string[]
function ranks.devices(specs)
  local list, own = {}, nil
  for i, spec in ipairs(specs) do
    local open = spec == rules.ALL or spec == rules.AUTO
    own = open and (own or own_devices()) or own
    if not open or not own then
      list[#list + 1] = specs[i]
    else
      table.move(own, 1, spec == rules.ALL and #own or 1, #list + 1, list)
    end
  end
  return list
end

--- How many threads a process may use on a machine whose processors its launcher has not divided; nil: it has, or the
--- process is the only one there.
--- @return integer?
function ranks.threads()
  local _, count = place_on_machine()
  local units, all = core.find_device("cpu").units, #require("luv").cpu_info()
  if count == 1 or units < all or os.getenv "LAVAFLOW_THREADS" then return nil end
  return math.max(1, units // count)
end

--- Makes this process, and those that it starts, alone: it runs what the others do not take part in.
function ranks.leave()
  for _, name in ipairs { "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK" } do require("luv").os_unsetenv(name) end
end

--- files.is_file of the first process, for all: what depends on it must be the same.
function ranks.is_file(name)
  return core.ranks_decide(files.is_file(name))
end

return ranks
