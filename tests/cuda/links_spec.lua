-- What links CUDA devices, as `lavaflow devices` tells it, on the stand-in for the driver and for NCCL.
local cjson = require "cjson"
local core = require "lavaflow.core"
local helper = require "helper"

local function devices(env, ...)
  local result = helper.run({ helper.lavaflow, "devices", ... }, { env = env })
  assert.same({ 0, "" }, { result.code, result.err })
  return result.out
end

local function by_id(list)
  local found = {}
  for _, device in ipairs(list) do found[device.id] = device end
  return found
end

describe("lavaflow devices", function()
  it("tells_of_the_library_that_links_cuda_devices", function()
    local file = os.getenv "LAVAFLOW_LIBNCCL"
    local text = "\nNCCL 2.14.3, " .. file .. ": large gradients stay on cuda devices\n"
    assert.equal(text, devices():sub(-#text))
    local list = by_id(cjson.decode(devices(nil, "--json")))
    assert.same({ library = "NCCL 2.14.3", file = file }, list["cuda:1"].link)
    assert.is_nil(list.cpu.link)
  end)

  it("says_why_there_is_none", function()
    local none = { LAVAFLOW_LIBNCCL = "/nonexistent.so" }
    local text = devices(none)
    helper.has(text, "\nno NCCL: /nonexistent.so: cannot open shared object file")
    helper.has(text, "; cuda devices exchange gradients through the host\n")
    helper.has(by_id(cjson.decode(devices(none, "--json")))["cuda:0"].link.missing, "/nonexistent.so: ")
    helper.has(devices { LAVAFLOW_LIBNCCL = "libc.so.6" }, "no NCCL: not NCCL 2.14 or later: it has no ")
  end)

  it("says_nothing_of_it_where_no_cuda_device_can_be_used", function()
    assert.is_nil(devices({ LAVAFLOW_DEVICES = "cpu" }):find("NCCL", 1, true))
    assert.is_nil(devices({ LAVAFLOW_LIBCUDA = "/nonexistent.so" }):find("NCCL", 1, true))
  end)
end)

describe("a measured exchange", function()
  it("is_measured_through_the_link_too", function()
    local seconds = core.bandwidth({ "cuda:0", "cuda:1" }, { 4000, 40000 })
    assert.is_true(seconds[1].linked > 0 and seconds[2].linked > 0)
    assert.is_nil(core.bandwidth({ "cuda:0" }, { 4000 })[1].linked)
    assert.is_nil(core.bandwidth({ "cuda:0", "cpu" }, { 4000 })[1].linked)
  end)
end)
