// SPDX-License-Identifier: Apache-2.0

import { formatMac, tryParseMac } from '#base'
import {
  boolean,
  type Call,
  CniError,
  codes,
  type Decoded,
  type Dns,
  decode,
  type JsonObject,
  object,
  optional,
  string,
} from '#cni'
import type { NicSelector } from '#host'
import { dnsKeys, resultDns } from '../../lease.ts'

const schema = object({
  /** The NIC: by its name on the node, */
  device: optional(string, ''),
  /** its MAC, */
  hwaddr: optional(string, ''),
  /** the directory of its device below /sys/devices, */
  kernelpath: optional(string, ''),
  /** or its PCI address. */
  pciBusID: optional(string, ''),
  /** What a device plugin of Kubernetes gave the pod: a PCI address or the name of an auxiliary device. */
  runtimeConfig: optional(object({ deviceID: optional(string, '') })),
  /** Give away even the NIC of the node's default route. */
  allowDefaultRoute: optional(boolean, false),
  ipam: optional(object({ type: optional(string, '') })),
  dns: optional(dnsKeys),
})

/** Undefined: the NIC that the lease of the IPAM plugin names. */
export type Config = {
  readonly selector: NicSelector | undefined
  readonly allowDefaultRoute: boolean
  readonly dns?: Dns | undefined
}

const invalid = (message: string, details?: string) => new CniError(codes.invalidConfig, message, { details })

/** Reads a configuration. @throws {CniError} 7 naming the key */
export function parseConfig(config: JsonObject, { command }: Pick<Call, 'command'>): Config {
  const parsed = decode(schema, config)
  const { allowDefaultRoute, dns } = parsed
  const selector = selectorOf(parsed)
  // Which device it will be is known with the pod, not yet when the node is asked whether it is ready.
  const mayBeOpen = command === 'STATUS' || command === 'GC' || (parsed.ipam?.type ?? '') !== ''
  if (selector === undefined && !mayBeOpen)
    throw invalid(
      'specify either "device", "hwaddr", "kernelpath" or "pciBusID"',
      'or name an IPAM plugin whose lease names a NIC, as tcnp-ipam does in mode "eni"',
    )
  return { selector, allowDefaultRoute, ...resultDns(dns) }
}

function selectorOf({ device, hwaddr, kernelpath, pciBusID, runtimeConfig }: Decoded<typeof schema>) {
  const deviceId = runtimeConfig?.deviceID ?? ''
  if (device !== '') return { by: 'name', name: device } as const
  if (hwaddr !== '') return { by: 'mac', mac: macOf(hwaddr) } as const
  if (kernelpath !== '') return { by: 'kernelPath', path: checkKernelPath(kernelpath) } as const
  if (deviceId !== '') return { by: 'deviceId', id: deviceId } as const
  if (pciBusID !== '') return { by: 'pci', address: pciBusID } as const
  return undefined
}

function macOf(hwaddr: string): string {
  const mac = tryParseMac(hwaddr)
  if (mac === undefined)
    throw invalid(`failed to parse MAC address ${JSON.stringify(hwaddr)}`, '"hwaddr" is like fa:16:3e:4d:76:00')
  return formatMac(mac)
}

function checkKernelPath(path: string): string {
  if (!path.startsWith('/sys/devices/') || path.split('/').includes('..'))
    throw invalid(`kernel device path ${JSON.stringify(path)} must be absolute and begin with /sys/devices/`)
  return path
}

/** The words of a configuration for a NIC, for messages. */
export function describeSelector(selector: NicSelector): string {
  switch (selector.by) {
    case 'name':
      return `"device": "${selector.name}"`
    case 'mac':
      return `"hwaddr": "${selector.mac}"`
    case 'kernelPath':
      return `"kernelpath": "${selector.path}"`
    case 'pci':
      return `"pciBusID": "${selector.address}"`
    case 'deviceId':
      return `"deviceID": "${selector.id}"`
  }
}
