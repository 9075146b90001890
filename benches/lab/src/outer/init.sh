#!/bin/busybox sh
# The first process of the outer machine. /lab/settings has SHARE, a folder of the host that is writable here
# at the same path, BIND, the functions that vfio-pci gets, and PROCESSORS, how many there are.
export PATH=/bin
/bin/busybox mkdir -p /proc /sys /dev /low /high /host /jobs
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
. /lab/settings
while read -r module; do
    insmod "/lab/modules/$module.ko" || echo "lab: no module $module"
done < /lab/modules/order

# The host's files; what is written to them stays in memory.
mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=1048576,cache=loose host /low || echo "lab: no files"
mount -t tmpfs high /high
mkdir /high/upper /high/work
mount -t overlay -o lowerdir=/low,upperdir=/high/upper,workdir=/high/work root /host || echo "lab: no root"
mount -t proc proc /host/proc
mount -t sysfs sys /host/sys
mkdir -p /dev/pts /dev/shm
mount -t devtmpfs dev /host/dev
mount -t devpts pts /host/dev/pts
mount -t tmpfs shm /host/dev/shm
mount -t tmpfs run /host/run
mount -t 9p -o trans=virtio,version=9p2000.L,msize=1048576,cache=none share "/host$SHARE" || echo "lab: no share"
ifconfig lo up

for function in $BIND; do
    device=/sys/bus/pci/devices/$function
    echo vfio-pci > "$device/driver_override"
    [ -e "$device/driver" ] && echo "$function" > "$device/driver/unbind"
    echo "$function" > /sys/bus/pci/drivers_probe
    [ -e "$device/driver" ] || echo "lab: $function has no driver"
done

# A sign of life of each processor, by a timer of its own.
for cpu in $(seq 0 $((PROCESSORS - 1))); do
    chroot /host taskset -c $cpu sh -c \
        "while sleep 1; do count=\$((count + 1)); echo \$count > '$SHARE/beat-$cpu'; done" < /dev/null &
done

# The end of a job: its status appears at once and whole.
ended() {
    echo "$2" > "/host$SHARE/jobs/$1/ended"
    mv "/host$SHARE/jobs/$1/ended" "/host$SHARE/jobs/$1/status"
}

# A command in the background. As the leader of a session it can be killed with all that it started. The shell
# ignores the terminal's signals for what is in the background; env lets them through again.
job() {
    folder=$SHARE/jobs/$1
    setsid chroot /host /usr/bin/env --default-signal /bin/sh "$folder/command" < /dev/null > "/host$folder/output" 2>&1 &
    echo $! > "/jobs/$1"
    wait $!
    ended "$1" $?
}

# A command on the terminal.
shell() {
    stty -F /dev/ttyS2 sane
    setsid -c chroot /host /usr/bin/env --default-signal /bin/sh "$SHARE/jobs/$1/command" < /dev/ttyS2 > /dev/ttyS2 2>&1
    ended "$1" $?
}

# Whole lines only: this shell forgets a half-read one when a command ends meanwhile.
stty -F /dev/ttyS1 sane -echo
exec < /dev/ttyS1
echo "lab: ready" > /dev/ttyS1
while read -r verb number; do
    case $verb in
    start) job "$number" & ;;
    shell) shell "$number" & ;;
    end) kill -TERM "$(cat "/jobs/$number")" ;;
    kill) kill -KILL "-$(cat "/jobs/$number")" ;;
    esac
done
