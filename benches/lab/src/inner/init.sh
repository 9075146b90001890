#!/bin/busybox sh
# The first process of the guest. The kernel's command line has lab=STEP,STEP,...: what is done, in order.
# Each line that is looked for starts with "lab:" and goes to the serial line and to the screen. There the
# kernel is silenced first, so that its own last line and these stay visible together.
export PATH=/bin
/bin/busybox mkdir -p /proc /sys /dev
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
dmesg -n 1

say() {
    echo "lab: $*" > /dev/tty0
    echo "lab: $*" > /dev/ttyS0
}

# load MODULE: with what it needs, in the order of the archive's list
load() {
    while read -r wanted module; do
        [ "$wanted" = "$1" ] && insmod "/modules/$module.ko"
    done < /modules/order
}

# within SECONDS COMMAND...: until it succeeds; the guest's clock may run slow
within() {
    tries=$(($1 * 10))
    shift
    while [ $tries -gt 0 ]; do
        "$@" > /dev/null 2>&1 && return 0
        usleep 100000
        tries=$((tries - 1))
    done
    return 1
}

# interrupts NAME: how many came so far to the vectors of this driver, on all processors
interrupts() {
    awk -v name="$1" 'NR == 1 { cpus = NF; next }
        index($0, name) { for (i = 2; i <= cpus + 1; i++) sum += $i } END { print sum + 0 }' /proc/interrupts
}

# vectors NAME: of which kind they are
vectors() {
    awk -v name="$1" 'index($0, name) { for (i = 1; i <= NF; i++) if ($i ~ /MSI|APIC/) kinds[$i]++ }
        END { for (kind in kinds) printf "%s x%d ", kind, kinds[kind] }' /proc/interrupts
}

# What console the kernel found at start
console() {
    say "$(dmesg | sed -n 's/.*\(Console: colour .*\)/\1/p' | head -n 1)"
}

# Every function, as the guest sees it, and how wide addresses are
functions() {
    say "processor $(sed -n 's/^address sizes.*: //p' /proc/cpuinfo | head -n 1)"
    for function in /sys/bus/pci/devices/*; do
        class=$(cut -c 3- "$function/class")
        say "function ${function##*/} $(cut -c 3- "$function/vendor"):$(cut -c 3- "$function/device") $class"
    done
}

# What the BARs of every function decode
addresses() {
    for function in /sys/bus/pci/devices/*; do
        head -n 6 "$function/resource" | awk '$2 !~ /^0x0+$/ { print NR - 1, $1, $2 }' | while read -r bar; do
            say "address ${function##*/} $bar"
        done
    done
}

# The configuration of every function, only on the serial line
configuration() {
    for function in /sys/bus/pci/devices/*; do
        echo "lab: configuration ${function##*/}"
        hexdump -C "$function/config"
        cat "$function/resource"
    done > /dev/ttyS0
}

# How many pages of files are above 4 GiB
high() {
    awk '/^Node/ { above = $4 == "Normal" } above && /nr_zone_(in)?active_file/ { sum += $2 } END { print sum + 0 }' \
        /proc/zoneinfo
}

nvme() {
    load nvme
    within 60 test -b /dev/nvme0n1 || { say "nvme FAILED: no disk"; return; }
    before=$(interrupts nvme0)
    high=$(high)
    # What was read is forgotten when nobody has the disk open any more.
    exec 3< /dev/nvme0n1
    sum=$(sha256sum < /dev/nvme0n1)
    high=$(($(high) - high))
    exec 3<&-
    say "nvme bytes $(cat /sys/class/block/nvme0n1/size) x 512"
    say "nvme sha256 ${sum%% *}"
    say "nvme pages above 4 GiB $high"
    say "nvme interrupts before $before after $(interrupts nvme0)"
    say "nvme vectors $(vectors nvme0)"
}

# 10.77.0.2 here and 10.77.0.1 the peer; it must send three requests too
net() {
    load e1000e
    within 30 test -e /sys/class/net/eth0 || { say "net FAILED: no interface"; return; }
    before=$(interrupts eth0)
    ip link set eth0 up
    ip address add 10.77.0.2/24 dev eth0
    within 60 grep -q 1 /sys/class/net/eth0/carrier || { say "net FAILED: no link"; return; }
    say "net link up, $(cat /sys/class/net/eth0/address)"
    # The peer may come later than this.
    within 60 ping -c 1 -W 1 10.77.0.1
    within 6 answered
    say "net $received"
    within 60 pinged 3 || { say "net FAILED: the peer sent $(requests) requests"; return; }
    say "net requests of the peer $(requests)"
    say "net interrupts before $before after $(interrupts eth0)"
    say "net vectors $(vectors eth0)"
}

# Whether three large packets in a row are answered; a machine that stands still for a second loses one
answered() {
    received=$(ping -A -c 3 -s 1000 10.77.0.1 | grep received)
    case $received in "3 packets transmitted, 3 packets received"*) ;; *) return 1 ;; esac
}

requests() {
    awk '/^Icmp:/ { if (++line == 1) { for (i = 1; i <= NF; i++) if ($i == "InEchos") at = i } else print $at }' \
        /proc/net/snmp
}

pinged() {
    [ "$(requests)" -ge "$1" ]
}

# with ID: the first function with this vendor and device, as 0x1002:0x5159
with() {
    for function in /sys/bus/pci/devices/*; do
        [ "$(cat "$function/vendor"):$(cat "$function/device")" = "$1" ] && echo "$function" && return
    done
}

# Dwords at both ends of the BARs of a function that has large ones, before and after a write. The second one's
# region ends before its register does.
ends() {
    function=$(with 0x1b36:0x00fe)
    end 0 0x0 0x1ffffffff8
    end 2 0x0 0x2f00effff8 0x3ffffffff8
}

# end BAR OFFSET...
end() {
    bar=$1
    shift
    at=$*
    set -- $(sed -n $((bar + 1))p "$function/resource")
    say "ends $bar size $(printf '0x%x' $(($2 - $1 + 1))) above 4 GiB $(($1 >= 0x100000000))"
    for offset in $at; do
        address=$(printf '0x%x' $(($1 + offset)))
        before=$(devmem $address 32)
        devmem $address 32 0x12345678
        say "ends $bar at $offset before $before after $(devmem $address 32)"
    done
}

# A Radeon RV100 by hand: what is written to a scratch register through the I/O BAR is read in memory, and
# the interrupt of the vertical blank comes by the line, each time that it is let through again.
ports() {
    function=$(with 0x1002:0x5159)
    ports=$(sed -n 2p "$function/resource" | cut -d ' ' -f 1)
    memory=$(sed -n 3p "$function/resource" | cut -d ' ' -f 1)
    load uio_pci_generic
    echo 1002 5159 > /sys/bus/pci/drivers/uio_pci_generic/new_id
    within 10 test -c /dev/uio0 || { say "ports FAILED: no driver"; return; }
    exec 3<> /dev/uio0
    printf trap | dd of=/dev/port bs=1 seek=$((ports + 0x10)) 2> /dev/null
    say "ports $ports memory $memory scratch $(devmem $((memory + 0x10)) 32)"
    before=$(interrupts uio_pci_generic)
    for time in 1 2 3 4; do
        devmem $((memory + 0x44)) 32 1
        # COMMAND bit 10, interrupt disable: the driver sets it each time.
        printf '\000' | dd of="$function/config" bs=1 seek=5 conv=notrunc 2> /dev/null
        devmem $((memory + 0x40)) 32 1
        timeout 20 dd bs=4 count=1 <&3 > /dev/null 2>&1 || say "ports FAILED: no interrupt $time"
    done
    devmem $((memory + 0x40)) 32 0
    say "ports interrupts before $before after $(interrupts uio_pci_generic)"
    say "ports vectors $(vectors uio_pci_generic)"
}

# out PORT BYTES: as octal escapes, to consecutive ports
out() {
    printf "$2" | dd of=/dev/port bs=1 seek="$1" 2> /dev/null
}

# byte PORT: what stands there, as two digits
byte() {
    dd if=/dev/port bs=1 skip="$1" count=1 2> /dev/null | hexdump -v -e '1/1 "%02x"'
}

# Configuration space of a Radeon RV100 by ways of its own: port 3c3 has bits 15:8 of the I/O BAR, register
# 0xf00 of the memory BAR is the first byte, and the I/O BAR begins with index and data of the same.
quirks() {
    function=$(with 0x1002:0x5159)
    bar=$(sed -n 1p "$function/resource" | cut -d ' ' -f 1)
    ports=$(sed -n 2p "$function/resource" | cut -d ' ' -f 1)
    memory=$(sed -n 3p "$function/resource" | cut -d ' ' -f 1)
    printf '\003' | dd of="$function/config" bs=1 seek=4 conv=notrunc 2> /dev/null
    say "quirks bar $(printf %08x "$bar") ports $(printf %04x "$ports")"
    say "quirks port 3c3 $(byte $((0x3c3)))"
    say "quirks mirror $(devmem $((memory + 0xf10)) 32)"
    out $((ports)) '\020\017\000\000'
    say "quirks window $(byte $((ports + 7)))$(byte $((ports + 6)))$(byte $((ports + 5)))$(byte $((ports + 4)))"
    out $((ports)) '\004\017\000\000'
    # What is written to the screen meanwhile is lost.
    out $((ports + 4)) '\001'
    without=$(devmem $((memory + 0xf10)) 32)
    out $((ports + 4)) '\003'
    say "quirks without memory $without"
    say "quirks with memory $(devmem $((memory + 0xf10)) 32)"
}

# A virtio GPU by its driver
gpu() {
    # The text is looked at first.
    sleep 8
    load virtio_gpu
    within 60 test -e /dev/fb0 || { say "gpu FAILED: no frame buffer"; return; }
    before=$(interrupts virtio)
    say "gpu $(cat /sys/class/graphics/fb0/name) $(cat /sys/class/graphics/fb0/virtual_size)"
    sleep 1
    say "gpu interrupts before $before after $(interrupts virtio)"
    say "gpu vectors $(vectors virtio)"
}

# Whatever drivers there are, and the functions that have one then
drivers() {
    while read -r wanted module; do
        insmod "/modules/$module.ko" || say "drivers FAILED: $module"
    done < /modules/order
    sleep 5
    for driver in /sys/bus/pci/devices/*/driver; do
        [ -e "$driver" ] || continue
        function=${driver%/driver} name=$(readlink "$driver")
        say "driver ${function##*/} $(cut -c 3- "$function/vendor"):$(cut -c 3- "$function/device") ${name##*/}"
    done
}

# Text that scrolls, as many lines as a screen has twenty times, and no two alike
scroll() {
    for line in $(seq 500); do
        digits=$((line * 7919 % 10007))
        printf 'line %d of 500, %05d %05d %05d\n' $line $digits $digits $digits
    done > /dev/tty0
}

steps=$(sed -n 's/.*\blab=\([^ ]*\).*/\1/p' /proc/cmdline)
say "init, uptime $(cut -d ' ' -f 1 /proc/uptime)"
for step in $(echo "$steps" | tr , ' '); do
    case $step in
    console | functions | addresses | configuration | nvme | net | ends | ports | quirks | gpu) $step ;;
    drivers | scroll) $step ;;
    stay) ;;
    reset) say "reset"; reboot -f ;;
    off) say "off"; poweroff -f ;;
    *) say "FAILED: no step $step" ;;
    esac
done
say "done"
while :; do sleep 3600; done
