// SPDX-License-Identifier: Apache-2.0

import { closeSync } from 'node:fs'
import { parseIp } from '#base'
import { AF_INET, addAddress, addLink, addRoute, decodeLink, getLink, setLink } from '#rtnetlink'
import { HostContext } from './context.ts'
import { type Host, inlineHost } from './host.ts'
import { makeAnonymousNetns } from './netns.ts'

/** A node with an uplink and a pod of it, which nobody else sees: namespaces without names, gone when disposed of. */
export type ScratchNode = Disposable & { readonly host: Host; readonly podNetnsFd: number }

export const SCRATCH_UPLINK = 'uplink'
/** RFC 5737. */
const network = { own: parseIp('192.0.2.1'), gateway: parseIp('192.0.2.254'), length: 24 }

/** Makes a scratch node. Its links go with its namespace: it takes no time to remove them. @throws {SystemError} without privileges */
export function makeScratchNode(): ScratchNode {
  using undo = new DisposableStack()
  const context = undo.use(new HostContext(makeAnonymousNetns()))
  const podNetnsFd = undo.adopt(makeAnonymousNetns(), closeSync)
  context.onNode(() => makeUplink(context))
  const owned = undo.move()
  return {
    host: { ...inlineHost(context), removeLinks: async () => {}, removePodLink: async () => {} },
    podNetnsFd,
    [Symbol.dispose]: () => owned.dispose(),
  }
}

function makeUplink({ route }: HostContext): void {
  const ifname = SCRATCH_UPLINK
  route.execute([addLink({ ifname, linkinfo: { kind: 'veth', data: { peer: { ifname: 'segment' } } } })])
  const { index } = decodeLink(route.execute([getLink({ ifname })])[0]!.messages[0]!)
  route.execute([
    setLink({ index }, { up: true }),
    addAddress({ index, prefix: { ip: network.own, length: network.length } }),
    addRoute({ family: AF_INET, gateway: network.gateway, outInterface: index }),
  ])
}
