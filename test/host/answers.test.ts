// SPDX-License-Identifier: Apache-2.0

// Promise: a node answers ARP and neighbour discovery for addresses that nobody has, on the link where it was told to, and
// for no others. Method: the verbs, in a namespace with a neighbour that asks. Needs root; no kernel with ipvlan.

import assert from 'node:assert/strict'
import { before, describe, test } from 'node:test'
import { parseIp } from '#base'
import { type Host, threadedHost } from '#host'
import { makeNetns, type Netns, skip } from '../nodelab.ts'

describe('answers for silent links', { skip }, () => {
  let node: Netns
  let other: Netns
  before(() => {
    ;[node, other] = [makeNetns('node'), makeNetns('other')]
    node.ip(`link add eth0 type veth peer name eth0 netns ${other.name}`)
    node.ip('link set eth0 up')
    other.ip('addr add 10.99.0.1/24 dev eth0')
    other.ip('addr add fd00:99::1/64 dev eth0 nodad')
    other.ip('link set eth0 up')
  })
  const [v4, v6, none] = ['10.99.0.50', 'fd00:99::50', '10.99.0.51']
  /** What the neighbour finds out about an address. */
  const ask = (ip: string) => {
    other.ip('neigh flush dev eth0')
    other.run('sh', '-c', `ping -c1 -w1 ${ip} > /dev/null; true`)
    return other.ip(`neigh show ${ip}`).trim()
  }
  const answers = { owner: 'mooring test', addresses: [parseIp(v4), parseIp(v6)] }
  const eth0 = async (host: Host) => (await host.findMaster({ name: 'eth0', netnsFd: undefined }))!

  test('are given for both families, end when they are taken back, and come back after a flush', async () => {
    await using host = await threadedHost(node.path)
    const link = await eth0(host)
    const mac = JSON.parse(node.ip('-j link show eth0'))[0].address
    assert.equal(await host.answerFor({ link, answers }), true)
    assert.equal(await host.answerFor({ link, answers }), false)
    for (const ip of [v4, v6]) assert.match(ask(ip), new RegExp(`lladdr ${mac} REACHABLE`), ip)
    assert.doesNotMatch(ask(none), /lladdr/)
    assert.deepEqual(await host.findAnswerFaults({ link, answers }), [])

    node.run('nft', 'flush', 'ruleset')
    assert.match((await host.findAnswerFaults({ link, answers })).join(), /answer_eth0/)
    assert.equal(await host.ensureFirewall({ parts: ['silentPods'] }), true)
    assert.equal(await host.ensureFirewall({ parts: ['silentPods'] }), false)
    assert.equal(await host.answerFor({ link, answers }), true)
    assert.match(ask(v4), /REACHABLE/)

    const found = await host.findAnswers({ owner: answers.owner })
    assert.equal(found.length, 2)
    for (const each of found) await host.stopAnswering({ answers: each })
    for (const ip of [v4, v6]) assert.doesNotMatch(ask(ip), /lladdr/, ip)
    await host.stopAnswering({ answers: { ...answers, link: 'eth0' } })
  })

  test('are those of the address, whoever has it now: the end of the one before is none of its', async () => {
    await using host = await threadedHost(node.path)
    const link = await eth0(host)
    const next = { ...answers, owner: 'mooring next' }
    await host.answerFor({ link, answers })
    await host.answerFor({ link, answers: next })
    await host.stopAnswering({ answers: { ...answers, link: 'eth0' } })
    for (const ip of [v4, v6]) assert.match(ask(ip), /REACHABLE/, ip)
    await host.stopAnswering({ answers: { ...next, link: 'eth0' } })
    assert.doesNotMatch(ask(v4), /lladdr/)
  })

  test('tell the MAC that the link has now', async () => {
    await using host = await threadedHost(node.path)
    await host.answerFor({ link: await eth0(host), answers })
    node.ip('link set eth0 address 02:00:00:00:00:99')
    assert.equal(await host.answerFor({ link: await eth0(host), answers }), true)
    for (const ip of [v4, v6]) assert.match(ask(ip), /lladdr 02:00:00:00:00:99 REACHABLE/, ip)
  })
})
