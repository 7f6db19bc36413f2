// Uploads in all forms and downloads, of files and of what is stored in spaces.
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'

import { check, client, failure } from './checks.mjs'

const sdk = client({ retries: 0 })
const digest = (bytes) => createHash('sha256').update(bytes).digest('hex')
const bytesOf = (answer) => Buffer.from(answer.data)

/** Bytes that no text codec would leave alone. */
function noise(length) {
  const bytes = new Uint8Array(length)
  for (let index = 0; index < length; index += 1) {
    bytes[index] = (index * 31 + (index >> 8)) & 0xff
  }
  return bytes
}

const big = noise(3_000_017)

await check('a file without content', async () => {
  const { id } = await sdk.file.create({ name: 'Empty' })
  const answer = await sdk.file.download(id)
  assert.equal(answer.data.byteLength, 0)
})

await check('handed off to the storage', async () => {
  const { id } = await sdk.file.create({ name: 'Handed off' })
  const uploaded = await sdk.file.upload(id, { data: big, type: 'image/png', name: 'big.png' })
  assert.equal(uploaded.id, id)
  const answer = await sdk.file.download(id)
  assert.equal(digest(bytesOf(answer)), digest(big))
  assert.equal(answer.headers.get('content-type'), 'image/png')
  assert.match(answer.headers.get('content-disposition'), /filename="big.png"/)
  assert.equal((await sdk.file.fetch(id)).meta.contentType, 'image/png')
})

await check('a text handed off to the storage', async () => {
  const { id } = await sdk.file.create({ name: 'Text' })
  await sdk.file.upload(id, { data: 'héllo 世界', type: 'text/plain', name: 'a.txt' })
  assert.equal(bytesOf(await sdk.file.download(id)).toString(), 'héllo 世界')
})

await check('raw bytes', async () => {
  const { id } = await sdk.file.create({ name: 'Raw' })
  await sdk.clientFetch(`/api/v1/file/${id}/upload`, { buffer: big })
  assert.equal(digest(bytesOf(await sdk.file.download(id))), digest(big))
  return { sha256: digest(big), size: big.length }
})

await check('a form', async () => {
  const { id } = await sdk.file.create({ name: 'Form' })
  const file = { data: big, type: 'application/pdf', name: 'form.pdf' }
  await sdk.clientFetch(`/api/v1/file/${id}/upload`, { file })
  const answer = await sdk.file.download(id)
  assert.equal(digest(bytesOf(answer)), digest(big))
  assert.equal(answer.headers.get('content-type'), 'application/pdf')
})

await check('a data URL', async () => {
  const { id } = await sdk.file.create({ name: 'Data URL' })
  const file = `data:text/csv;base64,${Buffer.from('a,b\n1,2\n').toString('base64')}`
  await sdk.clientFetch(`/api/v1/file/${id}/upload`, { record: { file } })
  assert.equal(bytesOf(await sdk.file.download(id)).toString(), 'a,b\n1,2\n')
})

await check('a new content is seen at once', async () => {
  const { id } = await sdk.file.create({ name: 'Twice' })
  for (const word of ['first', 'second']) {
    await sdk.clientFetch(`/api/v1/file/${id}/upload`, { buffer: Buffer.from(word) })
    assert.equal(bytesOf(await sdk.file.download(id)).toString(), word)
  }
})

await check('the storage of a space', async () => {
  const { id } = await sdk.space.create({ name: 'Space' })
  const path = 'notes/a b/ü (1) & 世界.txt'
  const file = `data:text/plain,${encodeURIComponent('In space')}`
  await sdk.space.storage.upload(id, path, { file })
  const { items } = await sdk.space.storage.list(id, undefined, { recursive: true })
  assert.deepEqual(
    items.map((item) => [item.path, item.isDirectory]),
    [[path, false]]
  )
  const { url } = await sdk.space.storage.download(id, path)
  assert.equal(await (await fetch(url)).text(), 'In space')

  await sdk.space.storage.copy(id, path, { destinationPath: 'copy.txt' })
  await sdk.space.storage.move(id, 'copy.txt', { destinationPath: 'moved.txt' })
  const top = await sdk.space.storage.list(id)
  assert.deepEqual(top.items.map((item) => item.path).sort(), ['moved.txt', 'notes'])
  await sdk.space.storage.delete(id, 'notes', { recursive: true })
  const gone = await failure(() => sdk.space.storage.download(id, path))
  assert.equal(gone.code, 'NOT_FOUND')
  return { id }
})
