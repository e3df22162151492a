// SPDX-License-Identifier: Apache-2.0

import { formatMac } from '#base'
import type { Transport } from '#netlink'
import {
  AF_INET,
  AF_INET6,
  decodeAddress,
  decodeLink,
  decodeRoute,
  dumpAddresses,
  dumpLinks,
  dumpRoutes,
  IFF_UP,
  type Link,
  type Saved,
  saveAddress,
  saveRoute,
} from '#rtnetlink'
import { tryFindLink } from './links.ts'

/** A NIC with all that it loses when it leaves the node's namespace. Plain data, for the journal. */
export type NicState = {
  readonly name: string
  readonly index: number
  readonly mac: string
  readonly mtuBytes: number
  readonly up: boolean
  readonly alias: string | null
  readonly altnames: string[]
  /** The bridge or bond that it is a port of. */
  readonly master: string | null
  readonly addresses: Saved[]
  /** Routes of every table but `local`. */
  readonly routes: Saved[]
  /** When this was true: addresses may have a lifetime. */
  readonly readMs: number
} & NicIdentity

/** What nobody in a container can change of a NIC. */
export type NicIdentity = {
  /** IFLA_INFO_KIND; null for a device of a bus. The kernel destroys a link with a kind together with its namespace. */
  readonly kind: string | null
  readonly permanentMac: string | null
  /** The device of a bus behind it. */
  readonly parent: { readonly bus: string; readonly name: string } | null
}

/** What of a link cannot be changed. */
export const identityOf = (link: Link): NicIdentity => ({
  kind: link.linkinfo?.kind ?? null,
  permanentMac: link.permAddress === undefined ? null : formatMac(link.permAddress),
  parent:
    link.parentDevName === undefined || link.parentDevBusName === undefined
      ? null
      : { bus: link.parentDevBusName, name: link.parentDevName },
})

/** True if the link can be that NIC. */
export function isSameNic(link: Link, nic: NicIdentity): boolean {
  const found = identityOf(link)
  return found.kind === nic.kind && found.permanentMac === nic.permanentMac
}

/** Every link of the namespace. */
export const listLinks = (route: Transport): Link[] => route.execute([dumpLinks()])[0]!.messages.map(decodeLink)

/** Everything about a NIC, as it is now. */
export function readNic(route: Transport, link: Link): NicState {
  const { index } = link
  const addresses = route
    .execute([dumpAddresses(index)])[0]!
    .messages.filter(message => decodeAddress(message).index === index)
  const routes = [AF_INET, AF_INET6]
    .flatMap(family => route.execute([dumpRoutes(family, { outInterface: index })])[0]!.messages)
    .filter(message => decodeRoute(message).outInterface === index)
  const master = link.master === undefined ? undefined : tryFindLink(route, { index: link.master })
  return {
    name: link.ifname ?? '',
    index,
    mac: formatMac(link.address ?? new Uint8Array(0)),
    mtuBytes: link.mtu ?? 0,
    up: (link.flags & IFF_UP) !== 0,
    alias: link.ifalias ?? null,
    altnames: link.propList ?? [],
    master: master?.ifname ?? null,
    addresses: addresses.map(saveAddress).filter(saved => saved !== undefined),
    routes: routes.map(saveRoute).filter(saved => saved !== undefined),
    readMs: Date.now(),
    ...identityOf(link),
  }
}
