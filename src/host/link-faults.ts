// SPDX-License-Identifier: Apache-2.0

import { formatMac } from '#base'
import { IFF_UP, type Link } from '#rtnetlink'
import { tryReadSysctl } from './sysctl.ts'

// What CHECK finds alike, whatever kind of plugin made the link.

/** How a link has to be, beside up; what is left out is not looked at. */
export type LinkExpectation = {
  /** Its number: DEL finds the link by it. */
  readonly index?: number | undefined
  /** IFLA_INFO_KIND. */
  readonly kind?: string | undefined
  readonly mac?: Uint8Array | undefined
  readonly mtuBytes?: number | undefined
  /** IFLA_IFALIAS: whose the link is. */
  readonly owner?: string | undefined
}

export type Place = 'on the node' | 'in the pod'

/** Compares a link with what its ADD made of it. @returns the differences in words, none: all is well */
export function linkFaults(link: Link | undefined, ifName: string, where: Place, want: LinkExpectation): string[] {
  const name = `link ${ifName} ${where}`
  if (link === undefined) return [`${name} is missing`]
  const faults: string[] = []
  const kind = link.linkinfo?.kind ?? 'a device'
  if (want.kind !== undefined && kind !== want.kind) faults.push(`${name} is no ${want.kind} but ${kind}`)
  if ((link.flags & IFF_UP) === 0) faults.push(`${name} is down`)
  const mac = formatMac(link.address ?? new Uint8Array(6))
  if (want.mac !== undefined && mac !== formatMac(want.mac))
    faults.push(`${name} has MAC ${mac}, not ${formatMac(want.mac)}`)
  if (want.mtuBytes !== undefined && link.mtu !== want.mtuBytes)
    faults.push(`${name} has MTU ${link.mtu}, not ${want.mtuBytes}`)
  if (want.owner !== undefined && link.ifalias !== want.owner)
    faults.push(`${name} is not of this attachment: its alias is "${link.ifalias ?? ''}", not "${want.owner}"`)
  if (want.index !== undefined && link.index !== want.index)
    faults.push(`${name} is another than the one that was made: its number is ${link.index}, not ${want.index}`)
  return faults
}

/** Whether the two are the ends of one pair. Each must be there, else that is said already. */
export function pairFaults(host: Link | undefined, pod: Link | undefined): string[] {
  if (host === undefined || pod === undefined) return []
  if (pod.link === host.index && host.link === pod.index) return []
  return [`link ${pod.ifname} in the pod is not the other end of ${host.ifname}`]
}

/** A setting of the calling thread's namespace, by its path below `net`. One that this kernel lacks nobody can have made. */
export function settingFaults(where: Place, value: '0' | '1', ...key: string[]): string[] {
  const found = tryReadSysctl(...key)
  if (found === value || found === undefined) return []
  const name = `net.${key.join('.')}`
  return [value === '1' ? `${name} is off ${where}` : `${name} is ${found}, not ${value}, ${where}`]
}
