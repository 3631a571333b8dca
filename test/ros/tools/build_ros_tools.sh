#!/usr/bin/env bash
# Builds the ROS tools that PyPI lacks (launch, ros2cli, tf2) from their sources beside PyPI's ROS wheels, and this package
# with colcon, as a stand-in for an installed ROS 2.
#
#   test/ros/tools/build_ros_tools.sh SOURCES PREFIX
#   PREFIX/run pytest test/ros/tools test/ros/node/test_launch.py test/ros/node/test_target_frame.py
#   PREFIX/run ros2 launch instructsam_ros perception.launch.py
#
# SOURCES holds checkouts, of the branch jazzy where there is one, of the repositories ros2/geometry2, ros2/launch,
# ros2/launch_ros, ros2/rcl_interfaces, ros2/ros2cli, ros2/rosidl_runtime_py and osrf/osrf_pycommon. PREFIX is created;
# running the script again rebuilds what has changed. With an installed ROS 2 that is sourced, run pytest alone.
set -euo pipefail

[ $# = 2 ] || { sed -n '2,12s/^# \{0,1\}//p' "$0" >&2; exit 2; }
root=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../../..")
sources=$(realpath "$1")
mkdir -p "$2"
prefix=$(realpath "$2")
python=${PYTHON:-$root/.venv/bin/python}
folders=(
  geometry2/{tf2,tf2_msgs,tf2_py,tf2_ros_py}
  launch/{launch,launch_testing,launch_xml,launch_yaml}
  launch_ros/{launch_ros,launch_testing_ros,ros2launch}
  osrf_pycommon
  rcl_interfaces/composition_interfaces
  ros2cli/{ros2action,ros2cli,ros2interface,ros2lifecycle,ros2node,ros2param,ros2pkg,ros2run,ros2service,ros2topic}
  rosidl_runtime_py
)
for folder in "${folders[@]}"; do
  [ -d "$sources/$folder" ] || { echo "$sources/$folder is missing: clone its repository into $sources" >&2; exit 2; }
done

# The underlay: ROS wheels, with the generators of messages, and what the tools import. torch and the other packages of
# this environment come after them.
if [ ! -e "$prefix/underlay.done" ]; then
  "$python" -m venv --clear "$prefix/underlay"
  "$prefix/underlay/bin/python" - "$root" >"$prefix/requirements.txt" <<'PYTHON'
import sys

sys.path.insert(0, f'{sys.argv[1]}/scripts/backend')
import ros_source

print(*ros_source.build_requirements(ros_source.WHEELS), *ros_source.RUN_WHEELS, sep='\n')
print('argcomplete', 'lark-parser', 'psutil', 'setuptools<80', sep='\n')
PYTHON
  "$prefix/underlay/bin/python" -m pip install --quiet --requirement "$prefix/requirements.txt"
  # The wheels name include folders of the Python that built them, which CMake refuses where they are absent.
  include=$("$prefix/underlay/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
  grep -rl '/opt/python/cp' "$prefix/underlay/share" --include='*.cmake' |
    xargs -r sed -i -E "s#/opt/python/cp[^;\"]*#$include#g"
  touch "$prefix/underlay.done"
fi
site=$("$prefix/underlay/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
"$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])' >"$site/borrowed.pth"

# colcon needs an older setuptools than the rest.
if [ ! -e "$prefix/colcon.done" ]; then
  "$python" -m venv --clear "$prefix/colcon"
  "$prefix/colcon/bin/python" -m pip install --quiet colcon-core colcon-bash colcon-cmake colcon-library-path \
    colcon-package-selection \
    colcon-python-setup-py colcon-recursive-crawl colcon-ros 'setuptools<80'
  touch "$prefix/colcon.done"
fi

cat >"$prefix/run" <<RUN
#!/usr/bin/env bash
# Runs a command with the ROS tools and this package sourced.
unset PYTHONPATH
export AMENT_PREFIX_PATH=$prefix/underlay CMAKE_PREFIX_PATH=$prefix/underlay PATH=$prefix/underlay/bin:\$PATH
export LD_LIBRARY_PATH=$prefix/underlay/lib\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}
[ ! -e $prefix/install/local_setup.bash ] || source $prefix/install/local_setup.bash
if [ "\$1" = pytest ]; then set -- python3 -P -m "\$@"; fi  # -P: the checkout must not hide the installed package
exec "\$@"
RUN
chmod +x "$prefix/run"

cd "$prefix"
AMENT_PREFIX_PATH=$prefix/underlay CMAKE_PREFIX_PATH=$prefix/underlay PATH=$prefix/underlay/bin:$PATH \
  LD_LIBRARY_PATH=$prefix/underlay/lib \
  "$prefix/colcon/bin/colcon" build --base-paths "${folders[@]/#/$sources/}" "$root" --merge-install \
  --executor sequential \
  --cmake-args -DBUILD_TESTING=OFF -DCMAKE_BUILD_TYPE=Release "-DPython3_EXECUTABLE=$prefix/underlay/bin/python3"
# The executables name colcon's Python.
sed -i "1s|^#!.*python.*|#!/usr/bin/env python3|" "$prefix"/install/bin/*
