// SPDX-License-Identifier: Apache-2.0

import { type Deadline, deadlineIn, type Ip } from '#base'
import { closeDescriptor, EINVAL, EOPNOTSUPP, packetSocket } from '#libc'
import type { Request, Transport } from '#netlink'
import { addLink, deleteLink, IFF_NOARP, ipvlanFlags, ipvlanModes, type Link, macvlanModes } from '#rtnetlink'
import { announce } from './announce.ts'
import type { HostContext } from './context.ts'
import { tryFindLink } from './links.ts'
import {
  configurePodLink,
  findPodLinkFaults,
  type PodLink,
  type PodLinkExpectation,
  type PodLinkState,
} from './pod-link.ts'
import { describeUplink, findUplinkLink, type Uplink } from './uplink.ts'

// macvlan and ipvlan: links that a pod has on a master, a link of the node (or, for nesting, of the pod itself).

/** What the kernel is to make of the master. */
export type ChildInfo =
  | { readonly kind: 'macvlan'; readonly data: { mode: number; bcQueueLen?: number } }
  | { readonly kind: 'ipvlan'; readonly data: { mode: number; flags: number } }

/** The link that others are made on. `bridgeIndex`: the bridge, bond or VRF that it is part of. */
export type Master = Uplink & { bridgeIndex: number | undefined }

/**
 * The link of that name, or that of the default route.
 * @param netnsFd the namespace to look into; undefined: the node's
 */
export function findMaster(
  context: HostContext,
  { name, netnsFd }: { name: string | undefined; netnsFd: number | undefined },
): Master | undefined {
  const find = (route: Transport): Master | undefined => {
    const link = findUplinkLink(route, name)
    return link && { ...describeUplink(link), bridgeIndex: link.master }
  }
  return netnsFd === undefined ? find(context.route) : context.inNetns(netnsFd, find)
}

/** A link to be made in a pod, on a master. */
export type Child = {
  readonly info: ChildInfo
  readonly master: { readonly index: number; readonly mac: Uint8Array }
  /** The master is in the pod's namespace, too. */
  readonly masterInPod: boolean
  readonly netnsFd: number
  /** The number that it gets, see `chooseLinkIndex`. Noted before, it tells the link from any other. */
  readonly index: number
  /** `mac` and `mtuBytes` are those that it is made with. */
  readonly link: PodLink
}

/** NetlinkError.request of the request that makes the link: EEXIST there means that the pod has one of that name. */
export const makesChild = (kind: ChildInfo['kind'], ifName: string): string => `add ${kind} link ${ifName}`

/**
 * Makes the link in the pod under its own name, configures it and lets the segment know. Leaves nothing when it fails.
 */
export function addChild(context: HostContext, child: Child, deadline: Deadline = deadlineIn(10_000)): PodLinkState {
  const { link, masterInPod, netnsFd } = child
  const make = createRequest(child)
  if (!masterInPod) context.route.execute([make], deadline)
  return context.inNetns(netnsFd, route => {
    if (masterInPod) route.execute([make], deadline)
    using undo = new DisposableStack()
    undo.defer(() => route.execute([deleteLink({ index: child.index })]))
    const { mac: _, mtuBytes: _made, ...rest } = link
    const state = configurePodLink(route, { ...rest, index: child.index }, deadline)
    if (isSilent(state)) announceFor(context, child)
    undo.move()
    return state
  })
}

/**
 * A number for a new link that no other has: those that the kernel gives do not come that far. The kernel before 6.15
 * refuses a link for another namespace whose name is taken in the sender's, unless the link brings its number: then it
 * looks for that.
 */
export const chooseLinkIndex = (): number => 0x100000 + Math.floor(Math.random() * 0xf00000)

function createRequest({ info, index, link, master, masterInPod, netnsFd }: Child): Request {
  const { ifName: ifname, mac, mtuBytes: mtu } = link
  const attributes = {
    ...{ ifname, link: master.index, linkinfo: info },
    ...(mac === undefined ? {} : { address: mac }),
    ...(mtu === undefined ? {} : { mtu }),
    ...(masterInPod ? {} : { netnsFd }),
  }
  return { ...addLink(attributes, { index }), about: makesChild(info.kind, ifname) }
}

/** ipvlan in mode l3 and l3s: the link neither asks nor answers who has an address. */
const isSilent = ({ flags }: PodLinkState): boolean => (flags & IFF_NOARP) !== 0

/** The master speaks for a link that says nothing itself. Called in the pod's namespace. */
function announceFor(context: HostContext, { master, masterInPod, link }: Child): void {
  const ips = link.addresses.map(({ ip }): Ip => ip)
  if (!masterInPod) {
    announce(context, master, ips)
    return
  }
  // A socket keeps the namespace in which it was opened.
  const packet = packetSocket()
  try {
    announce({ packet }, master, ips)
  } finally {
    closeDescriptor(packet)
  }
}

/** A link in a pod, for telling whose it is. */
export type PodLinkIdentity = {
  readonly index: number
  readonly kind: string | undefined
  readonly owner: string | undefined
  readonly mac: Uint8Array | undefined
}

/** One link of a pod by name or number; undefined where there is none. */
export function describePodLink(
  context: HostContext,
  netnsFd: number,
  target: { index: number } | { ifname: string },
): PodLinkIdentity | undefined {
  return context.inNetns(netnsFd, route => {
    const link = tryFindLink(route, target)
    return link && { index: link.index, kind: link.linkinfo?.kind, owner: link.ifalias, mac: link.address }
  })
}

/** Removes a link from a pod, by number and kind: another may have its name by now. Absence is success. */
export function removePodLink(context: HostContext, netnsFd: number, { index, kind }: { index: number; kind: string }) {
  context.inNetns(netnsFd, route => {
    if (tryFindLink(route, { index })?.linkinfo?.kind === kind) route.execute([deleteLink({ index })])
  })
}

/** What CHECK wants to see. */
export type ChildExpectation = {
  readonly netnsFd: number
  readonly masterInPod: boolean
  /** Undefined where the configuration names none: then any that is there is right. */
  readonly masterName: string | undefined
  readonly info: ChildInfo
  readonly link: PodLinkExpectation
}

/** Compares a link on a master with what its ADD made. @returns the differences in words, none: all is well. */
export function findChildFaults(context: HostContext, want: ChildExpectation): string[] {
  const { ifName } = want.link
  return context.inNetns(want.netnsFd, route => {
    const faults = findPodLinkFaults(route, { ...want.link, kind: want.info.kind })
    const link = tryFindLink(route, { ifname: ifName })
    if (link?.linkinfo?.kind !== want.info.kind) return faults
    faults.push(...infoFaults(link, want.info, ifName))
    faults.push(...masterFaults(want.masterInPod ? route : context.route, link, want))
    return faults
  })
}

// The words of the kernel's own tools, for messages.
const words: Readonly<Record<string, Readonly<Record<string, number>>>> = {
  'macvlan mode': macvlanModes,
  'ipvlan mode': ipvlanModes,
  'ipvlan flags': ipvlanFlags,
}

const wordFor = (kind: string, key: string, value: number | undefined): string =>
  Object.entries(words[`${kind} ${key}`] ?? {}).find(([, each]) => each === value)?.[0] ?? String(value)

function infoFaults(link: Link, { kind, data: want }: ChildInfo, ifName: string): string[] {
  const has = link.linkinfo !== undefined && 'data' in link.linkinfo ? link.linkinfo.data : undefined
  return Object.entries(want).flatMap(([key, value]) => {
    const found = (has as Record<string, number> | undefined)?.[key]
    if (found === value) return []
    return [`${kind} link ${ifName} has ${key} ${wordFor(kind, key, found)}, not ${wordFor(kind, key, value)}`]
  })
}

function masterFaults(
  route: Transport,
  { link: index = 0, linkNetnsid }: Link,
  { link: { ifName }, masterName, masterInPod }: ChildExpectation,
): string[] {
  const master = tryFindLink(route, masterName === undefined ? { index } : { ifname: masterName })
  if (master === undefined) return [`master ${masterName ?? index} of ${ifName} is missing`]
  // Where the master is in another namespace the kernel says in which.
  const isThere = master.index === index && (linkNetnsid === undefined) === masterInPod
  return isThere ? [] : [`${ifName} is on another master than ${master.ifname}`]
}

/**
 * True if the kernel has links of that kind, or a module for them. Asked by a request that it has to refuse: a link on no
 * master.
 */
export function isKindKnown({ route }: HostContext, kind: ChildInfo['kind']): boolean {
  const request = addLink({ ifname: '', linkinfo: { kind } })
  const [reply] = route.execute([{ ...request, about: `ask for ${kind} links`, tolerate: [EINVAL, EOPNOTSUPP] }])
  return reply!.tolerated === EINVAL
}
