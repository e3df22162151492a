// SPDX-License-Identifier: Apache-2.0

import { closeSync } from 'node:fs'
import { deadlineIn, formatMac, tryParseMac } from '#base'
import { EEXIST } from '#libc'
import { NETLINK_ROUTE, NetlinkError, NetlinkSocket, type Transport } from '#netlink'
import {
  addAltname,
  byReach,
  deleteAltname,
  isV6,
  type Link,
  RTM_GROUP_LINK,
  restoreAddress,
  restoreRoute,
  setLink,
} from '#rtnetlink'
import type { HostContext } from './context.ts'
import { tryFindLink } from './links.ts'
import { identifyNetns, type NetnsIdentity, tryOpenNetns } from './netns.ts'
import { identityOf, isSameNic, listLinks, type NicState, readNic } from './nic-state.ts'
import { configurePodLink, findPodLinkFaults, type PodLink, type PodLinkExpectation } from './pod-link.ts'
import { ensureSysctl } from './sysctl.ts'
import { type Device, findBusDevice, findKernelDevice, isBehind } from './sysfs.ts'

/** How a NIC of the node is named. */
export type NicSelector =
  | { readonly by: 'name'; readonly name: string }
  | { readonly by: 'mac'; readonly mac: string }
  /** A directory below /sys/devices. */
  | { readonly by: 'kernelPath'; readonly path: string }
  | { readonly by: 'pci'; readonly address: string }
  /** A PCI address or the name of an auxiliary device. */
  | { readonly by: 'deviceId'; readonly id: string }

/** A NIC that is there, or a device that a program drives (DPDK): there is no link of it to move. */
export type FoundNic = { readonly nic: NicState } | { readonly userspaceDriver: string }

/** Finds a NIC in the node's namespace. Undefined: there is none. */
export function findNic({ route }: HostContext, selector: NicSelector): FoundNic | undefined {
  if (selector.by === 'name' || selector.by === 'mac') {
    const link = selector.by === 'name' ? tryFindLink(route, { ifname: selector.name }) : findByMac(route, selector.mac)
    return link === undefined ? undefined : { nic: readNic(route, link) }
  }
  const device = deviceOf(selector)
  if (device === undefined) return undefined
  if (device.userspaceDriver !== undefined) return { userspaceDriver: device.userspaceDriver }
  const links = listLinks(route)
  const link =
    links.find(({ parentDevName: name, parentDevBusName: bus }) => {
      return name !== undefined && bus !== undefined && isBehind(device, { bus, name })
    }) ?? links.find(({ ifname }) => ifname !== undefined && device.links.includes(ifname))
  return link === undefined ? undefined : { nic: readNic(route, link) }
}

function deviceOf(selector: Exclude<NicSelector, { by: 'name' | 'mac' }>): Device | undefined {
  switch (selector.by) {
    case 'pci':
      return findBusDevice('pci', selector.address)
    case 'deviceId':
      return findBusDevice('pci', selector.id) ?? findBusDevice('auxiliary', selector.id)
    case 'kernelPath':
      return findKernelDevice(selector.path)
  }
}

/** A bridge, a VLAN or a bond has the MAC of its NIC: the NIC goes before what is made on it. */
function findByMac(route: Transport, mac: string): Link | undefined {
  const found = listLinks(route).filter(({ address }) => address !== undefined && formatMac(address) === mac)
  return (
    found.find(({ linkinfo }) => linkinfo === undefined) ?? found.find(({ link }) => link === undefined) ?? found[0]
  )
}

/** NetlinkError.request where the name in the container is taken. */
export const movesNic = (name: string, ifName: string): string => `move ${name} into the container as ${ifName}`

/** A NIC in a container. */
export type MovedNic = { index: number; mac: string; mtuBytes: number }

/**
 * Moves a NIC into a namespace, with its name there. Its alias becomes its name on the node: that is how the reference's
 * plugin finds its way back, and how we know ours. It is down then, without addresses.
 *
 * All or nothing. @throws {NetlinkError} EEXIST where the name is taken there
 */
export function moveNicIn(
  context: HostContext,
  { nic, netnsFd, ifName }: { nic: NicState; netnsFd: number; ifName: string },
): MovedNic {
  const about = movesNic(nic.name, ifName)
  context.inNetns(netnsFd, route => {
    if (tryFindLink(route, { ifname: ifName }) !== undefined) throw new NetlinkError(about, EEXIST)
  })
  // A link cannot be renamed to what is one of its names already. Marked first, so that the name is not forgotten.
  if (nic.altnames.includes(ifName))
    context.route.execute([setLink({ index: nic.index }, { ifalias: nic.name }), deleteAltname(nic.index, ifName)])
  using undo = new DisposableStack()
  // The kernel moves first and renames then: where the second failed, the NIC is there under its own name.
  undo.defer(() => void bringNicHome(context, { nic, podIndex: nic.index, netnsFd }))
  context.route.execute([setLink({ index: nic.index }, { netnsFd, ifname: ifName, ifalias: nic.name }, about)])
  const moved = context.inNetns(netnsFd, route => {
    const link = tryFindLink(route, { ifname: ifName })
    if (link === undefined) throw new NetlinkError(about, EEXIST)
    return { index: link.index, mac: formatMac(link.address ?? new Uint8Array(0)), mtuBytes: link.mtu ?? 0 }
  })
  undo.move()
  return moved
}

export type LostNic = {
  readonly nic: NicState
  /** Its number in the container. */
  readonly podIndex: number | null
  /** The container's namespace, if it is still there. */
  readonly netnsFd: number | undefined
}

/**
 * Brings a NIC back to the node, from wherever it is: the container, or the first namespace of the machine, in which the
 * kernel puts NICs whose namespace has died; and gives it all that it had.
 *
 * It ends with the alias, so that what was cut short is done again by the next call. Absence is success.
 * @returns false where it is nowhere to be found: destroyed with its namespace, unplugged, or on its way
 */
export function bringNicHome(context: HostContext, { nic, podIndex, netnsFd }: LostNic): boolean {
  if (netnsFd !== undefined && bringFrom(context, netnsFd, nic, podIndex)) return true
  if (isMarkedHere(context.route, nic)) return restoreNic(context.route, nic)
  const first = openFirstNetns()
  if (first === undefined) return false
  try {
    const isHome = isSame(identifyNetns(first), identifyNetns(context.home))
    return !isHome && bringFrom(context, first, nic, null)
  } finally {
    closeSync(first)
  }
}

/** The namespace of the machine's first process; undefined where this one may not look at that. */
function openFirstNetns(): number | undefined {
  try {
    return tryOpenNetns('/proc/1/ns/net')
  } catch {
    return undefined
  }
}

const isSame = (a: NetnsIdentity, b: NetnsIdentity) => a.device === b.device && a.inode === b.inode

/** Carries our mark: its alias is its name on the node. */
const isMarked = (link: Link, nic: NicState) => link.ifalias === nic.name && isSameNic(link, nic)
const isMarkedHere = (route: Transport, nic: NicState) => listLinks(route).some(link => isMarked(link, nic))

function bringFrom(context: HostContext, fd: number, nic: NicState, podIndex: number | null): boolean {
  const isMoved = context.inNetns(fd, route => {
    const link = findNicIn(route, nic, podIndex)
    if (link === undefined) return false
    const { index } = link
    route.execute([setLink({ index }, { up: false, ifalias: nic.name })])
    // Renamed where nobody watches: udev and NetworkManager stumble over links that change their name after they came.
    const isNamed =
      link.ifname === nic.name || succeeds(() => route.execute([setLink({ index }, { ifname: nic.name })]))
    const home = { netnsFd: context.home }
    const back = `bring ${nic.name} back to the node`
    if (isNamed && succeeds(() => route.execute([setLink({ index }, { ...home, ifname: nic.name }, back)]))) return true
    // One of its names is another's by now. As the kernel does it then.
    for (const name of link.propList ?? []) route.execute([deleteAltname(index, name)])
    route.execute([setLink({ index }, { ...home, ifname: 'dev%d' }, back)])
    return true
  })
  return isMoved && restoreNic(context.route, nic)
}

function findNicIn(route: Transport, nic: NicState, podIndex: number | null): Link | undefined {
  const links = listLinks(route).filter(link => isSameNic(link, nic))
  // The container may have taken the alias away, but not changed what it is.
  return (
    links.find(link => isMarked(link, nic)) ?? links.find(link => isPlace(link, nic, podIndex) && isSameMac(link, nic))
  )
}

const isPlace = (link: Link, nic: NicState, podIndex: number | null) =>
  link.index === podIndex || link.ifname === nic.name

const isSameMac = (link: Link, nic: NicState) =>
  nic.permanentMac !== null || formatMac(link.address ?? new Uint8Array(0)) === nic.mac

function succeeds(step: () => unknown): boolean {
  try {
    step()
    return true
  } catch (error) {
    if (error instanceof NetlinkError) return false
    throw error
  }
}

/** Gives a NIC that is on the node, marked as ours, all that it had. Goes on after what fails. @throws the first error */
function restoreNic(route: Transport, nic: NicState): boolean {
  const link = listLinks(route).find(each => isMarked(each, nic))
  if (link === undefined) return false
  const { index } = link
  const failures: unknown[] = []
  const attempt = (step: () => void) => {
    try {
      step()
    } catch (error) {
      failures.push(error)
    }
  }
  const mac = tryParseMac(nic.mac)
  const isNameFree = link.ifname !== nic.name && tryFindLink(route, { ifname: nic.name }) === undefined
  if (isNameFree)
    attempt(() => void route.execute([setLink({ index }, { up: false }), setLink({ index }, { ifname: nic.name })]))
  const name = isNameFree ? nic.name : (link.ifname ?? nic.name)
  if (mac !== undefined && formatMac(link.address ?? new Uint8Array(0)) !== nic.mac)
    attempt(() => void route.execute([setLink({ index }, { address: mac }, `give ${nic.name} its MAC back`)]))
  if (link.mtu !== nic.mtuBytes)
    attempt(() => void route.execute([setLink({ index }, { mtu: nic.mtuBytes }, `give ${nic.name} its MTU back`)]))
  for (const altname of nic.altnames)
    if (!(link.propList ?? []).includes(altname)) attempt(() => void route.execute([addAltname(index, altname)]))
  attempt(() => restoreMaster(route, index, nic))
  attempt(() => restoreAddresses(route, { index, name }, nic))
  attempt(() => void route.execute([setLink({ index }, { ifalias: nic.alias ?? '' })]))
  if (failures.length > 0) throw failures[0]
  return true
}

function restoreMaster(route: Transport, index: number, nic: NicState): void {
  const master = nic.master === null ? undefined : tryFindLink(route, { ifname: nic.master })
  if (master !== undefined) route.execute([setLink({ index }, { master: master.index })])
}

function restoreAddresses(route: Transport, { index, name }: { index: number; name: string }, nic: NicState): void {
  const elapsedSeconds = Math.max(0, Math.floor((Date.now() - nic.readMs) / 1000))
  const give = (v6: boolean) =>
    nic.addresses
      .filter(saved => isV6(saved) === v6)
      .map(saved => restoreAddress(saved, index, elapsedSeconds))
      .filter(request => request !== undefined)
  if (nic.addresses.some(isV6)) ensureSysctl('0', 'ipv6', 'conf', name, 'disable_ipv6')
  const requests = [
    ...give(false),
    ...(nic.up ? [setLink({ index }, { up: true })] : []),
    ...give(true),
    ...(nic.up ? byReach(nic.routes).map(saved => restoreRoute(saved, index)) : []),
  ]
  if (requests.length > 0) route.execute(requests)
}

/**
 * Waits until some link comes, goes or changes, at most `ms`: look again then, whatever happened before the call.
 * Blocks its thread: `threadedHost` has one for it.
 */
export function awaitLinkChange(_context: HostContext, { ms }: { ms: number }): void {
  using listener = new NetlinkSocket(NETLINK_ROUTE, RTM_GROUP_LINK)
  listener.awaitNotification(deadlineIn(ms))
}

/** True if the NIC is in that namespace, as whatever it is called there. */
export function isNicIn(context: HostContext, { nic, podIndex, netnsFd }: LostNic & { netnsFd: number }): boolean {
  return context.inNetns(netnsFd, route => findNicIn(route, nic, podIndex) !== undefined)
}

/** A name that a link can have; what stands in an alias may be anything. */
const isLinkName = (text: string) => /^[^\s/:]{1,15}$/.test(text) && text !== '.' && text !== '..'

/**
 * A NIC in a container that nobody has a record of, with its name on the node in its alias, where the reference's plugin
 * keeps it (`asNamed`: with the name that it has). Undefined where that name is no longer free: then it may be anything.
 */
export function findStrayNic(
  context: HostContext,
  { netnsFd, ifName, asNamed = false }: { netnsFd: number; ifName: string; asNamed?: boolean },
): { nic: NicState; podIndex: number } | undefined {
  const link = context.inNetns(netnsFd, route => tryFindLink(route, { ifname: ifName }))
  const name = asNamed ? link?.ifname : link?.ifalias
  if (link === undefined || name === undefined || !isLinkName(name)) return undefined
  if (tryFindLink(context.route, { ifname: name }) !== undefined) return undefined
  const nic: NicState = {
    name,
    index: 0,
    mac: formatMac(link.address ?? new Uint8Array(0)),
    mtuBytes: link.mtu ?? 0,
    // Nobody knows how it was.
    up: false,
    alias: null,
    altnames: link.propList ?? [],
    master: null,
    addresses: [],
    routes: [],
    readMs: Date.now(),
    ...identityOf(link),
  }
  return { nic, podIndex: link.index }
}

/** The name of the node's link with that MAC; undefined while there is none. */
export const findNicName = ({ route }: HostContext, { mac }: { mac: string }): string | undefined =>
  findByMac(route, mac)?.ifname

type InContainer<T> = T & { readonly netnsFd: number }

/** See the functions here and in pod-link.ts. */
export const nicVerbs = {
  findNicName,
  findNic: (context: HostContext, { selector }: { selector: NicSelector }) => findNic(context, selector),
  findStrayNic,
  isNicIn,
  moveNicIn,
  configureNic: (context: HostContext, { netnsFd, pod }: InContainer<{ pod: PodLink }>) =>
    context.inNetns(netnsFd, route => configurePodLink(route, pod)),
  findNicFaults: (context: HostContext, { netnsFd, pod }: InContainer<{ pod: PodLinkExpectation }>) =>
    context.inNetns(netnsFd, route => findPodLinkFaults(route, pod)),
  bringNicHome,
  awaitLinkChange,
} as const
