// SPDX-License-Identifier: Apache-2.0

import { existsSync, readdirSync, realpathSync } from 'node:fs'
import { basename, join } from 'node:path'

/** `MOORING_SYSFS` stands in for it where devices are to be tried that the machine lacks. */
const sysfs = () => process.env['MOORING_SYSFS'] ?? '/sys'

/** With one of these the device belongs to a program (DPDK): the kernel has no link of it. */
const USERSPACE_DRIVERS: readonly string[] = ['vfio-pci', 'uio_pci_generic', 'igb_uio']

/** A device of the machine as sysfs knows it, in which namespace its link ever is. */
export type Device = {
  /** Real path of its directory. */
  readonly path: string
  /** Its links that sysfs shows: those of the namespace in which sysfs was mounted. */
  readonly links: readonly string[]
  /** The driver that gives it to a program instead of to the kernel. */
  readonly userspaceDriver: string | undefined
}

/** A device of a bus, by its name there: a PCI address, an auxiliary device (mlx5_core.sf.4). Undefined: there is none. */
export function findBusDevice(bus: 'pci' | 'auxiliary', name: string): Device | undefined {
  // A name, never a path.
  if (name === '' || name === '.' || name === '..' || name.includes('/')) return undefined
  return findDevice(join(sysfs(), 'bus', bus, 'devices', name))
}

/** A device by its directory below /sys/devices. Undefined: there is none, or the path leads elsewhere. */
export function findKernelDevice(path: string): Device | undefined {
  const device = findDevice(join(sysfs(), path.slice('/sys'.length)))
  return device?.path.startsWith(`${realpathSync(sysfs())}/devices/`) ? device : undefined
}

/** True while the device behind a link is there: unplugged, it is in no namespace any more. */
export const isPlugged = ({ bus, name }: { bus: string; name: string }): boolean =>
  existsSync(join(sysfs(), 'bus', bus, 'devices', name))

/** True if that is the device, or its virtio child: a virtio NIC hangs below its PCI device. */
export function isBehind(device: Device, parent: { bus: string; name: string }): boolean {
  const path = tryRealPath(join(sysfs(), 'bus', parent.bus, 'devices', parent.name))
  return path !== undefined && (path === device.path || path.startsWith(`${device.path}/virtio`))
}

function findDevice(directory: string): Device | undefined {
  const path = tryRealPath(directory)
  if (path === undefined) return undefined
  const virtio = list(path).filter(name => /^virtio\d+$/.test(name))
  const links = [path, ...virtio.map(name => join(path, name))].flatMap(each => list(join(each, 'net')))
  const driver = tryRealPath(join(path, 'driver'))
  const isUserspace = driver !== undefined && USERSPACE_DRIVERS.includes(basename(driver))
  return { path, links, userspaceDriver: isUserspace ? basename(driver) : undefined }
}

function tryRealPath(path: string): string | undefined {
  try {
    return realpathSync(path)
  } catch {
    return undefined
  }
}

function list(directory: string): string[] {
  try {
    return readdirSync(directory)
  } catch {
    return []
  }
}
