# Sourced by run.sh and tests/run.sh: the packages, their installation, and the build. POSIX sh.

# Debian's and Ubuntu's names.
BUILD_PACKAGES="gcc libc6-dev cmake ninja-build pkg-config glslc libvulkan-dev libvulkan-volk-dev mesa-vulkan-drivers
  libhdf5-dev libopenblas-dev libssl-dev zlib1g-dev lua5.4 liblua5.4-dev lua-argparse lua-cjson lua-filesystem lua-luv
  lua-penlight"
TEST_PACKAGES="libcmocka-dev lua-busted lua-check python3-h5py hdf5-tools vulkan-validationlayers
  gnuplot-nox openmpi-bin g++"

# install_missing PACKAGE…: installs those that are not there; says and does nothing when all are.
install_missing() {
  if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    # Elsewhere names differ: the tools are looked for, and CMake says which library it does not find.
    for tool in cc cmake ninja pkg-config glslc; do
      if ! command -v "$tool" >/dev/null; then
        echo "$tool is missing. Please install this system's counterparts of these Debian packages:" >&2
        echo "$*" >&2
        return 2
      fi
    done
    return 0
  fi
  missing=
  for package in "$@"; do
    case $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) in
      installed) ;;
      *) missing="$missing $package" ;;
    esac
  done
  [ -z "$missing" ] && return 0
  echo "installing:$missing"
  as_root=
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "Please install as root:$missing" >&2; return 2; }
    as_root=sudo
  fi
  $as_root apt-get update -qq &&
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null ||
    { echo "These packages could not be installed:$missing" >&2; return 2; }
}

# build FOLDER TARGET OPTION…: configures and builds. The output is kept in FOLDER/build.log and shown on failure.
build() {
  folder=$1 target=$2
  shift 2
  mkdir -p "$folder" || return 1
  if ! { cmake -S . -B "$folder" -G Ninja "$@" && cmake --build "$folder" --target "$target"; } \
    >"$folder/build.log" 2>&1; then
    cat "$folder/build.log" >&2
    echo "The build in $folder failed." >&2
    return 1
  fi
}
