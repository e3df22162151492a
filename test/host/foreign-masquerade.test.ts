// SPDX-License-Identifier: Apache-2.0
// Promise: what upstream's plugins made to hide a container goes by the container's name, and another's stays. Method: their
// rules as iptables and nft show them, in a namespace of its own. Needs root.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { closeSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
import { type Host, HostContext, inlineHost, openOwnNetns } from '#host'
import { setNetworkNamespace, unshareNetwork } from '#libc'

const skip = process.getuid?.() === 0 ? false : 'needs root'
const hash = (text: string, length: number) => createHash('sha512').update(text).digest('hex').slice(0, length)
const chainOf = (containerId: string) => `CNI-${hash(`net${containerId}`, 24)}`
const commentOf = (containerId: string) =>
  `${hash('net', 16)}-${hash(`eth0:${containerId}`, 16)}, net: net, if: eth0, id: ${containerId}`

describe('removeForeignMasquerade()', { skip }, () => {
  let home: number
  let context: HostContext
  let host: Host
  before(() => {
    home = openOwnNetns()
    unshareNetwork()
    context = new HostContext()
    host = inlineHost(context)
  })
  after(() => {
    setNetworkNamespace(home)
    context[Symbol.dispose]()
    closeSync(home)
  })
  // A child is in the namespace of the thread that starts it.
  const nft = (...args: string[]) => {
    const { status, stdout, stderr } = spawnSync('nft', args, { encoding: 'utf8' })
    assert.equal(status, 0, stderr)
    return stdout
  }
  const attachment = (containerId: string) => ({ network: 'net', containerId, ifName: 'eth0' })

  test('takes chains and rules of one container, in both families and back ends; absence is success', async () => {
    await host.removeForeignMasquerade(attachment('a')) // no table at all
    for (const family of ['ip', 'ip6'])
      nft(
        `add table ${family} nat
         add chain ${family} nat POSTROUTING { type nat hook postrouting priority 100; }
         ${['a', 'b']
           .map(
             id => `add chain ${family} nat ${chainOf(id)}
                    add rule ${family} nat ${chainOf(id)} masquerade
                    add rule ${family} nat POSTROUTING meta mark 7 jump ${chainOf(id)}`,
           )
           .join('\n')}
         add rule ${family} nat POSTROUTING meta mark 8 masquerade`,
      )
    nft(
      `add table inet cni_plugins_masquerade
       add chain inet cni_plugins_masquerade masq_checks
       ${['a', 'b'].map(id => `add rule inet cni_plugins_masquerade masq_checks meta mark 7 accept comment "${commentOf(id)}"`).join('\n')}`,
    )
    for (const _ of [1, 2]) await host.removeForeignMasquerade(attachment('a'))
    const left = nft('list', 'ruleset')
    assert.ok(!left.includes(chainOf('a')) && !left.includes('id: a'), left)
    assert.equal(left.split(`jump ${chainOf('b')}`).length, 3, 'of each family')
    assert.equal(left.split('mark 0x00000008').length, 3, 'rules of nobody')
    assert.match(left, /id: b/)
    await host.removeForeignMasquerade(attachment('b'))
    assert.doesNotMatch(nft('list', 'ruleset'), /CNI-|id: b/)
  })
})
