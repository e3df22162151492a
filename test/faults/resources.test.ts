// SPDX-License-Identifier: Apache-2.0

// Goal: a full disk, a directory that cannot be written and too few descriptors are one error each, nothing is left, and
// DEL takes the pod away all the same (ROB-05, ROB-06). Needs root.

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import {
  type Attachment,
  assertSameState,
  errorOf,
  folder,
  makeLab,
  makeNetns,
  type Node,
  resultOf,
  run,
  skip,
  stateOfKernel,
} from '../nodelab.ts'

describe('too little of something', { skip }, () => {
  let node: Node
  let it: Attachment
  let kernel: string[]
  const mounted: string[] = []
  before(async () => {
    node = makeLab().nodes[0]!
    it = { containerId: 'c1', netns: makeNetns('pod').path }
    resultOf(await node.call('ADD', it))
    resultOf(await node.call('DEL', it))
    kernel = stateOfKernel(node)
  })
  after(() => {
    for (const directory of mounted) run('umount', [directory])
  })

  /** A file system of its own. */
  function diskOf(options: string): string {
    const directory = folder('disk')
    run('mount', ['-t', 'tmpfs', '-o', options, 'none', directory])
    mounted.push(directory)
    return directory
  }
  const inDataDir = (directory: string) => ({ env: { MOORING_DATA_DIR: directory } })

  test('a disk without room for the journal: error 5 that names the file, nothing is left', async () => {
    for (const size of ['16k', '64k']) {
      const options = inDataDir(diskOf(`size=${size}`))
      const error = errorOf(await node.call('ADD', it, options))
      assert.equal(error.code, 5)
      assert.match(error.msg, /^Cannot (open|write) the journal .*journal\.db: /)
      assertSameState(stateOfKernel(node), kernel, size)
    }
  })

  test('a disk that fills up while a pod runs: DEL takes the pod away', async () => {
    const directory = diskOf('size=1m')
    resultOf(await node.call('ADD', it, inDataDir(directory)))
    run('sh', ['-c', `cat /dev/zero > ${directory}/filler 2> /dev/null || true`])
    const outcome = await node.call('DEL', it, inDataDir(directory))
    if (outcome.code !== 0) assert.equal(errorOf(outcome).code, 5)
    assertSameState(stateOfKernel(node), kernel)
    run('rm', [`${directory}/filler`])
    resultOf(await node.call('DEL', it, inDataDir(directory)))
    assert.ok(!node.state().some(line => line.includes('/podnet/')))
  })

  test('a disk without room for the reservation: error 5 that names the file, nothing is left', async () => {
    const ipam = { type: 'host-local', dataDir: diskOf('size=8k,nr_inodes=4'), subnet: '10.10.10.0/24' }
    const error = errorOf(await node.call('ADD', it, { more: { ipam } }))
    assert.equal(error.code, 5)
    assert.match(error.msg, /no space left on device \(ENOSPC\)/)
    resultOf(await node.call('DEL', it, { more: { ipam } }))
    assertSameState(stateOfKernel(node), kernel)
  })

  test('few descriptors: raised where that is allowed, else error 5 or 11, and nothing is left', async () => {
    for (const files of [8, 16, 24, 32]) {
      // The soft limit alone may be raised; the hard one by CAP_SYS_RESOURCE only, which containers lack.
      for (const [limit, isRaised] of [[`${files}:4096`, true] as const, [`${files}:${files}`, false] as const]) {
        const outcome = await node.call('ADD', it, { prefix: ['/usr/bin/prlimit', `--nofile=${limit}`] })
        if (isRaised || outcome.code === 0) resultOf(outcome)
        else assert.ok([5, 11].includes(errorOf(outcome).code), outcome.stdout)
        resultOf(await node.call('DEL', it))
        assertSameState(stateOfKernel(node), kernel, `${limit} descriptors`)
      }
    }
  })

  test('a root that is read-only: error 5', async () => {
    const readOnly = ['/usr/bin/unshare', '--mount', '/bin/sh', '-c', 'mount -o remount,bind,ro / && exec "$@"', 'sh']
    assert.equal(errorOf(await node.call('ADD', it, { prefix: readOnly })).code, 5)
    assertSameState(stateOfKernel(node), kernel)
  })

  test('no HOME, no TZ, any umask: the same, and the journal is for root alone', async () => {
    for (const mask of ['0', '077']) {
      const directory = folder('data')
      const options = { ...inDataDir(`${directory}/own`), prefix: ['/bin/sh', '-c', `umask ${mask}; exec "$@"`, 'sh'] }
      resultOf(await node.call('ADD', it, options))
      resultOf(await node.call('DEL', it, options))
      assert.match(run('ls', ['-ld', `${directory}/own`]), /^drwx------/)
      assertSameState(stateOfKernel(node), kernel, `umask ${mask}`)
    }
  })
})
