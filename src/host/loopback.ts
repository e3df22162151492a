// SPDX-License-Identifier: Apache-2.0

import { formatIp, type Ip, isV4, type Prefix } from '#base'
import { ENODEV } from '#libc'
import { NetlinkError, type Transport } from '#netlink'
import { decodeLink, getLink, IFF_UP, type Link, scopes, setLink } from '#rtnetlink'
import { addressFaults } from './address-faults.ts'
import type { HostContext } from './context.ts'
import { listAddresses } from './uplink.ts'

const NAME = 'lo'

/** The loopback link of a namespace and its addresses, in the kernel's order. */
export type Loopback = { isUp: boolean; addresses: Prefix[] }

/** Brings `lo` up, unless it has an address that is none of loopback. Changes nothing when it fails. @returns it as it is then */
export function bringLoopbackUp(context: HostContext, netnsFd: number): Loopback | { foreign: Ip } {
  return context.inNetns(netnsFd, route => {
    const { index, flags } = findLoopback(route)
    // Before it is up the kernel has given it none; whatever is there is somebody's.
    const foreign = listAddresses(route, index).find(({ ip }) => !isLoopback(ip))
    if (foreign !== undefined) return { foreign: foreign.ip }
    route.execute([setLink({ index }, { up: true }, `set link ${NAME} up in the pod`)])
    try {
      return { isUp: true, addresses: listAddresses(route, index) }
    } catch (error) {
      if ((flags & IFF_UP) === 0) route.execute([setLink({ index }, { up: false })])
      throw error
    }
  })
}

/** Takes `lo` down, and with it every connection of the pod to itself. */
export function takeLoopbackDown(context: HostContext, netnsFd: number): void {
  context.inNetns(netnsFd, route => {
    route.execute([setLink({ index: findLoopback(route).index }, { up: false }, `set link ${NAME} down in the pod`)])
  })
}

/** Compares `lo` with what `bringLoopbackUp` made of it. @returns the addresses' differences in words, none: all is well */
export function checkLoopback(
  context: HostContext,
  netnsFd: number,
  addresses: readonly Prefix[],
): { isUp: boolean; faults: string[] } {
  return context.inNetns(netnsFd, route => {
    const { index, flags } = findLoopback(route)
    const wanted = addresses.map(prefix => ({ ...prefix, scope: scopes.host }))
    return { isUp: (flags & IFF_UP) !== 0, faults: addressFaults(route, index, { ifName: NAME, addresses: wanted }) }
  })
}

function findLoopback(route: Transport): Link {
  const message = route.execute([getLink({ ifname: NAME })])[0]!.messages[0]
  if (message === undefined) throw new NetlinkError(`find link ${NAME} in the pod`, ENODEV)
  return decodeLink(message)
}

const isLoopback = (ip: Ip): boolean => (isV4(ip) ? ip[0] === 127 : formatIp(ip) === '::1')
