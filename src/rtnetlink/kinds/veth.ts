// SPDX-License-Identifier: Apache-2.0

import { attributes, type Codec, type Writer, written } from '#netlink'

/** What the peer is made with: flags and any attribute of a link (name, MAC, MTU, namespace). */
export type Peer<A> = A & { index?: number; flags?: number }

/**
 * linux/veth.h, VETH_INFO_*: the peer is a whole link message (header and attributes) in one attribute. The tables
 * come from outside, since a link contains a kind and this kind a link.
 */
export function veth<H extends { index?: number; flags?: number }, A>(
  header: Codec<H> & { size: number },
  link: Codec<A>,
) {
  const write = (to: Writer, { index = 0, flags = 0, ...rest }: Peer<A>) => {
    to.value(header, { index, flags, change: flags } as unknown as H)
    to.value(link, rest as A)
  }
  const peer: Codec<Peer<A>> = {
    encode: value => written(to => write(to, value)),
    write,
    decode: data => {
      const { index, flags } = header.decode(data)
      return { ...link.decode(data.subarray(header.size)), index: index ?? 0, flags: flags ?? 0 }
    },
  }
  return attributes({ peer: [1, peer] })
}
