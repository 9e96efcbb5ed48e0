local lf = require "lavaflow"
local helper = require "helper"

local folder
setup(function()
  folder = helper.folder()
  helper.fixtures(folder)
end)
teardown(function() helper.remove(folder) end)

describe("data sets", function()
  it("parts_say_what_they_hold", function()
    local data = lf.dataset(folder .. "/good.h5")
    assert.is_nil(data.valid)
    assert.equal(48, data.train.rows)
    assert.equal(4, data.train.features)
    assert.equal("classes", data.train.target)
    assert.equal(3, data.train.classes)
    assert.equal(folder .. "/good.h5:/test/x", data.test.path)
    helper.has(helper.message(function() return data.trian end), 'no field "trian": it has train, valid, test')
  end)

  it("a_split_cuts_every_row_into_one_part", function()
    local spec = { file = folder .. "/flat.h5", x = "/data/x", y = "/data/y",
      split = { train = 0.5, valid = 0.25, test = 0.25, seed = 1 } }
    local data = lf.dataset(spec)
    assert.same({ 24, 12, 12 }, { data.train.rows, data.valid.rows, data.test.rows })
    local seen = {}
    for _, part in ipairs { data.train, data.valid, data.test } do
      for _, row in ipairs((part:read(0, part.rows))) do
        local key = table.concat(row, " ")
        assert.is_nil(seen[key])
        seen[key] = true
      end
    end
    spec.split.seed = 2
    assert.not_same(data.train:read(0, 24), lf.dataset(spec).train:read(0, 24))
  end)

  it("standard_rows_have_mean_0_and_deviation_1", function()
    local data = lf.dataset { file = folder .. "/good.h5", normalize = "standard" }
    local sum, squares = 0, 0
    for _, row in ipairs((data.train:read(0, 48))) do
      sum, squares = sum + row[1], squares + row[1] ^ 2
    end
    assert.is_true(math.abs(sum / 48) < 1e-4)
    assert.is_true(math.abs(squares / 48 - 1) < 1e-3)
  end)
end)

describe("a wrong data set", function()
  -- Opens the file and trains on it, whichever finds the fault first.
  local function refused(name, part)
    local message = helper.message(function()
      local data = lf.dataset(folder .. "/" .. name)
      lf.train { model = lf.mlp { 4, 3 }, data = data.train, epochs = 1, device = "cpu" }
    end)
    helper.has(message, folder .. "/" .. name)
    helper.has(message, part)
  end

  it("is_refused_with_the_file_the_object_and_the_reason", function()
    refused("nope.h5", "No such file or directory")
    refused("not_hdf5.h5", "is not an HDF5 file")
    refused("truncated.h5", "truncated")
    refused("nothing.h5", "/train/x: no such object")
    refused("text.h5", ":/train/x: holds values of type string; expects integers or floats")
    refused("unequal.h5", ":/train/y: has 47 rows, but")
    refused("negative.h5", ":/train/y: label -1 at row 7 is outside")
    refused("label.h5", ":/train/y has 12 classes, but the model has 3 outputs")
    refused("nan.h5", ":/train/x: value nan at row 5, column 0")
    refused("inf.h5", ":/train/x: value inf at row 5, column 0")
    refused("empty.h5", ":/train/x: is empty: 0 rows")
    refused("no_y.h5", ":/train/x has no targets y")
  end)

  it("names_the_objects_there_are", function()
    helper.has(helper.message(lf.dataset, { file = folder .. "/good.h5", x = "/nope" }),
      "/nope: no such object: the file has /test/x, /test/y, /train/x, /train/y")
  end)

  it("description_is_checked", function()
    local function described(t)
      t.file = folder .. "/flat.h5"
      return helper.message(lf.dataset, t)
    end
    helper.has(described { normalise = "standard" }, 'lf.dataset: unknown option "normalise"; nearest: normalize')
    helper.has(described { normalize = "std" }, 'lf.dataset: normalize: expected one of standard, minmax, got "std"')
    helper.has(described { x = "/data/x", split = { train = 0.8, tets = 0.2 } }, 'unknown option "tets"; nearest: test')
    helper.has(described { x = "/data/x", split = { train = 0.8, test = 0.4 } }, "the fractions sum to 1.2")
    helper.has(described { split = { train = 1 } }, "lf.dataset: split: expected x with it")
    helper.has(helper.message(lf.dataset, {}), "lf.dataset: file: expected a path, got nothing")
    helper.has(helper.message(lf.dataset), "lf.dataset: file: expected a path, got nothing")
  end)
end)
