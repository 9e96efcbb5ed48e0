-- An installation works where it stands, and from plain Lua.
local core = require "lavaflow.core"
local helper = require "helper"

local folder
setup(function()
  folder = helper.folder()
  helper.fixtures(folder)
  local result = helper.run({ "cmake", "--install", os.getenv "LAVAFLOW_BUILD", "--prefix", folder .. "/prefix" },
    { plain = true })
  assert.equal("", result.err)
  assert.equal(0, result.code)
end)
teardown(function() helper.remove(folder) end)

describe("an installation", function()
  it("runs_from_its_prefix_and_through_a_link", function()
    local environment = { LUA_PATH = ";;", LUA_CPATH = ";;" }
    local uv = require "luv"
    assert(uv.fs_symlink(folder .. "/prefix/bin/lavaflow", folder .. "/link"))
    for _, command in ipairs { folder .. "/prefix/bin/lavaflow", folder .. "/link" } do
      local result = helper.run({ command, "--version" }, { env = environment })
      assert.same({ 0, "lavaflow " .. core.version .. "\n", "" }, { result.code, result.out, result.err })
    end
  end)

  it("is_found_by_plain_lua", function()
    helper.write(folder .. "/plain.lua", [[
local lf = require "lavaflow"
local data = lf.dataset "good.h5"
local model = lf.sequential { lf.linear(4, 8), lf.relu(), lf.linear(8, 3) }
local history = lf.train { model = model, data = data.train, validation = data.test, epochs = 2, device = "cpu" }
print(package.searchpath("lavaflow", package.path), #history.val_accuracy)
model:save "model.h5"
]])
    local prefix = folder .. "/prefix"
    local result = helper.run({ helper.lua, "plain.lua" }, { cwd = folder, env = {
      LUA_PATH = prefix .. "/share/lua/5.4/?.lua;" .. prefix .. "/share/lua/5.4/?/init.lua;;",
      LUA_CPATH = prefix .. "/lib/lua/5.4/?.so;;",
    } })
    assert.same({ 0, prefix .. "/share/lua/5.4/lavaflow/init.lua\t2\n", "" }, { result.code, result.out, result.err })
    assert.is_true(helper.exists(folder .. "/model.h5"))
  end)
end)
